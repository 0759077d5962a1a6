//! What every part of the project does with files: [writes them whole](write_whole) and [names their
//! content](Content::sniff).

mod content;
mod whole;

pub use content::Content;
pub use whole::{WriteError, write_whole};
