//! The CPU engine's instruction set and memory, which all its users in a process share.

pub use rcnn_cpu::{InstructionSet, InstructionSetError, instruction_set, set_instruction_set};

/// Memory that the Flex backend keeps between operations.
///
/// Nothing of a model stays once it is dropped but idle memory, up to the limit.
pub mod memory {
    pub use rcnn_cpu::memory::{DEFAULT_LIMIT, clear, idle_bytes, set_limit};

    /// Bytes of the weights that the layers of all models keep in the form that they are multiplied with.
    /// They are freed with their layers.
    pub fn plan_bytes() -> usize {
        crate::backends::flex::plan::kept_bytes()
    }
}
