//! Files as every part of the project handles them: [writes them whole](write_whole), [names their
//! content](Content::sniff), and [keeps a folder to itself](FolderLock).

mod content;
mod lock;
mod temporary;
mod text;
mod whole;

pub use content::Content;
pub use lock::{FolderLock, LockError};
pub use temporary::{TemporaryFolder, remove_old_leftovers};
pub use text::{decode_text, read_text};
pub use whole::{WriteError, write_whole};
