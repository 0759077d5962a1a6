//! The instruction set that kernels use: which there are, and which is chosen.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::atomic::{AtomicU8, Ordering};

use super::Arch;

/// Environment variable that names the instruction set of the kernels.
const VARIABLE: &str = "RCNN_SIMD";

/// An instruction set that the kernels are compiled for.
///
/// Each computes the same sums in about the same order; results differ in their last bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionSet {
    /// Instructions that every processor of the architecture has.
    Plain,
    /// AVX2 and FMA: vectors of 8 floats on x86-64.
    Avx2,
    /// AVX-512 (F, BW, CD, DQ and VL): vectors of 16 floats on x86-64.
    Avx512,
    /// NEON: vectors of 4 floats on ARM64.
    Neon,
}

impl InstructionSet {
    const ALL: [Self; 4] = [Self::Plain, Self::Neon, Self::Avx2, Self::Avx512];

    /// The instruction sets that this processor has, the widest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|set| set.is_available())
    }

    /// Whether this processor has the instruction set.
    pub fn is_available(self) -> bool {
        Arch::from_set(self).is_some()
    }

    /// The instruction set that the environment variable `RCNN_SIMD` names (`plain`, `avx2`, `avx512`
    /// or `neon`), if it is set and not empty.
    pub fn from_environment() -> Result<Option<Self>, InstructionSetError> {
        let Some(name) = std::env::var_os(VARIABLE).filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let set: Self = name.to_string_lossy().parse()?;
        if set.is_available() {
            Ok(Some(set))
        } else {
            Err(InstructionSetError::Unavailable(set))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }
}

impl Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for InstructionSet {
    type Err = InstructionSetError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let named = |set: &Self| set.name() == name;
        let unknown = || InstructionSetError::Unknown(name.to_owned());
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

/// An instruction set that kernels cannot use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InstructionSetError {
    /// No instruction set has this name.
    #[error("unknown instruction set {0:?}: expected plain, avx2, avx512 or neon")]
    Unknown(String),
    /// This processor lacks the instruction set.
    #[error(
        "this processor lacks the instruction set {0}; it has {available}",
        available = names(InstructionSet::available())
    )]
    Unavailable(InstructionSet),
}

fn names(sets: impl Iterator<Item = InstructionSet>) -> String {
    let names: Vec<&str> = sets.map(InstructionSet::name).collect();
    names.join(", ")
}

/// The instruction set in use, as one more than its place in [`InstructionSet::ALL`]; 0 before it has
/// been chosen.
static CHOSEN: AtomicU8 = AtomicU8::new(0);

/// The instruction set that kernels use: the one last given to [`set_instruction_set`], else the one
/// that the environment variable `RCNN_SIMD` names, else the widest that the processor has.
///
/// An invalid value of the variable counts as none, for a kernel has no way to report it;
/// [`InstructionSet::from_environment`] does.
pub fn instruction_set() -> InstructionSet {
    if let Some(chosen) = CHOSEN.load(Ordering::Relaxed).checked_sub(1) {
        return InstructionSet::ALL[usize::from(chosen)];
    }
    let named = InstructionSet::from_environment().ok().flatten();
    let widest = || InstructionSet::available().last();
    let set = named.or_else(widest).unwrap_or(InstructionSet::Plain);
    choose(set);
    set
}

/// Makes all kernels use an instruction set from now on, in all threads.
///
/// Weights that have been prepared for another are prepared again. What is being computed meanwhile
/// may use both.
///
/// ```
/// # mod rcnn_burn { pub use rcnn_cpu as cpu; }
/// use rcnn_burn::cpu::{InstructionSet, instruction_set, set_instruction_set};
///
/// set_instruction_set(InstructionSet::Plain)?; // no vector instructions
/// assert_eq!(instruction_set(), InstructionSet::Plain);
/// # Ok::<(), rcnn_cpu::InstructionSetError>(())
/// ```
pub fn set_instruction_set(set: InstructionSet) -> Result<(), InstructionSetError> {
    if !set.is_available() {
        return Err(InstructionSetError::Unavailable(set));
    }
    choose(set);
    Ok(())
}

fn choose(set: InstructionSet) {
    let place = InstructionSet::ALL.iter().position(|&other| other == set);
    CHOSEN.store(place.map_or(0, |place| place as u8 + 1), Ordering::Relaxed);
}

/// Calls a test with each instruction set of the processor in use, for one test at a time. What the
/// other tests compute meanwhile may use any.
#[cfg(test)]
pub(crate) fn for_each_set(test: impl Fn(InstructionSet)) {
    use std::sync::{Mutex, PoisonError};

    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = instruction_set();
    for set in InstructionSet::available() {
        choose(set);
        test(set);
    }
    choose(before);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for set in InstructionSet::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        let unknown = "AVX2".parse::<InstructionSet>().unwrap_err();
        let expected = "unknown instruction set \"AVX2\": expected plain, avx2, avx512 or neon";
        assert_eq!(unknown.to_string(), expected);
    }

    #[test]
    fn what_the_processor_lacks_is_refused() {
        assert_eq!(
            InstructionSet::available().next(),
            Some(InstructionSet::Plain)
        );
        let lacks = |set: &InstructionSet| !set.is_available();
        for set in InstructionSet::ALL.into_iter().filter(lacks) {
            let error = set_instruction_set(set).unwrap_err();
            assert_eq!(error, InstructionSetError::Unavailable(set));
            let start = format!("this processor lacks the instruction set {set}; it has plain");
            assert!(error.to_string().starts_with(&start), "{error}");
        }
    }
}
