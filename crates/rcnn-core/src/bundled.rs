//! The bundled detector of blood cells: 1.2 million parameters, 2.4 MiB in half precision.

use weights_import::{Checkpoint, Weights, WeightsError};

/// Name of the bundled detector, accepted wherever weights are named.
pub const BLOOD_CELLS: &str = "blood-cells";

/// Bytes of the bundled detector's burnpack file.
pub const FILE: &[u8] = include_bytes!("../assets/blood-cells.bpk");

/// Reads the bundled detector's weights and configuration. Its classes are `Platelets`, `RBC` and `WBC`.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// # mod rcnn_burn { pub use rcnn_core::*; }
/// use rcnn_burn::Flex;
///
/// let weights = rcnn_burn::bundled::blood_cells()?;
/// println!("{}, {} classes", weights.config.backbone, weights.config.num_classes);
/// let model = weights.load::<Flex>(&Default::default())?;
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// None in a sound build; the file is checked as any other.
pub fn blood_cells() -> Result<Weights, WeightsError> {
    Weights::from_checkpoint(&Checkpoint::from_static(BLOOD_CELLS, FILE)?)
}
