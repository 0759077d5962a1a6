//! The bundled detector of blood cells: 1.2 million parameters, 2.4 MiB in half precision.

use weights_import::{Checkpoint, Weights, WeightsError};

/// Its name, where the names of weights are expected.
pub const BLOOD_CELLS: &str = "blood-cells";

/// The bytes of its file.
pub const FILE: &[u8] = include_bytes!("../assets/blood-cells.bpk");

/// Reads its weights and configuration. Its classes are `RBC`, `WBC` and `Platelets`.
///
/// # Errors
/// None in a sound build; the file is checked as any other.
pub fn blood_cells() -> Result<Weights, WeightsError> {
    Weights::from_checkpoint(&Checkpoint::from_static(BLOOD_CELLS, FILE)?)
}
