//! A module's parameters under torchvision's names and in torch's layouts, out and in.
//!
//! Modules are laid out so that their paths are torchvision's names; what is left to translate
//! is the layout of linear weights: `[out, in]` in torch, `[in, out]` in Burn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{DType, TensorData, backend::Backend};
use burn_store::{
    BurnToPyTorchAdapter, ModuleAdapter, ModuleSnapshot, PathFilter, PyTorchToBurnAdapter,
    TensorSnapshot, TensorSnapshotError,
};
use indexmap::IndexMap;
use rcnn_backbone::named_parameters;

use crate::CheckpointError;
use crate::storage;

/// Tensors in torch's layouts by torchvision's names; those of a file are read when asked for.
pub type StateDict = IndexMap<String, StateTensor>;

type Read = Arc<dyn Fn() -> Result<TensorData, CheckpointError> + Send + Sync>;

/// A tensor of a [`StateDict`]: its shape, its element type, and the way to its data. Cheap to clone.
#[derive(Clone)]
pub struct StateTensor {
    /// The sizes of its dimensions; none for a single number.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: DType,
    read: Read,
}

impl StateTensor {
    /// Creates a tensor from data in memory.
    pub fn new(data: TensorData) -> Self {
        Self::lazy(data.shape.to_vec(), data.dtype, move || Ok(data.clone()))
    }

    pub(crate) fn lazy(
        shape: Vec<usize>,
        dtype: DType,
        read: impl Fn() -> Result<TensorData, CheckpointError> + Send + Sync + 'static,
    ) -> Self {
        let read = Arc::new(read);
        Self { shape, dtype, read }
    }

    /// The elements, in row-major order.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn to_data(&self) -> Result<TensorData, CheckpointError> {
        (self.read)()
    }

    /// How many bytes the elements take.
    pub(crate) fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// The tensor after a change of its data, for burn-store.
    pub(crate) fn snapshot(
        &self,
        name: &str,
        shape: Vec<usize>,
        dtype: DType,
        errors: &ReadErrors,
        change: impl Fn(TensorData) -> TensorData + 'static,
    ) -> TensorSnapshot {
        let (read, errors, key) = (self.read.clone(), errors.clone(), name.to_string());
        let data = move || {
            let data = read().map_err(|error| errors.keep(&key, &error))?;
            Ok(change(data))
        };
        let path = name.split('.').map(String::from).collect();
        let id = Default::default();
        let mut snapshot =
            TensorSnapshot::from_closure(Rc::new(data), dtype, shape.into(), path, Vec::new(), id);
        // A random id would make every written file differ.
        snapshot.tensor_id = None;
        snapshot
    }
}

impl fmt::Debug for StateTensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.dtype, self.shape)
    }
}

/// Messages of tensors that could not be read, by name: burn-store passes on their debug output.
#[derive(Clone, Default)]
pub(crate) struct ReadErrors(Rc<RefCell<BTreeMap<String, String>>>);

impl ReadErrors {
    fn keep(&self, name: &str, error: &CheckpointError) -> TensorSnapshotError {
        let message = error.to_string();
        self.0.borrow_mut().insert(name.into(), message.clone());
        TensorSnapshotError::IoError(message)
    }

    /// The message of the first one.
    pub(crate) fn first(&self) -> Option<String> {
        self.0.borrow().values().next().cloned()
    }
}

/// All parameters and buffers of a module, copied, as torch's `module.state_dict()` names them.
/// `num_batches_tracked`, which inference has no use for, is not among them.
pub fn state_dict<B: Backend, M: Module<B>>(module: &M) -> StateDict {
    entries(module, None).collect()
}

/// One entry of [`state_dict`]. Other weights that were never used stay uninitialised.
pub(crate) fn state_dict_entry<B: Backend, M: Module<B>>(
    module: &M,
    name: &str,
) -> Option<(String, StateTensor)> {
    entries(module, Some(PathFilter::new().with_full_path(name))).next()
}

fn entries<B: Backend, M: Module<B>>(
    module: &M,
    filter: Option<PathFilter>,
) -> impl Iterator<Item = (String, StateTensor)> {
    let snapshots = module.collect(filter, Some(Box::new(BurnToPyTorchAdapter)), true);
    snapshots.into_iter().map(|snapshot| {
        let data = snapshot.to_data().expect("a tensor in memory can be read");
        (snapshot.full_path(), StateTensor::new(data))
    })
}

/// Names and shapes of all parameters and buffers of a module, in torch's layouts and in the order
/// of the layers. Weights that were never used stay uninitialised, so this is cheap.
pub fn parameter_shapes<B: Backend, M: Module<B>>(module: &M) -> Vec<(String, Vec<usize>)> {
    let parameters = named_parameters(module).into_iter();
    parameters.map(|p| (p.name, p.shape)).collect()
}

/// Result of a load: what became of each key, in torchvision's names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LoadReport {
    /// Keys that were loaded.
    pub loaded: Vec<String>,
    /// Keys of the model that are not in the checkpoint, with their shapes.
    pub missing: Vec<(String, Vec<usize>)>,
    /// Keys of the checkpoint that the model does not have.
    pub unexpected: Vec<String>,
    /// Keys of both with different shapes: the model's, then the checkpoint's.
    pub mismatched: Vec<(String, Vec<usize>, Vec<usize>)>,
    /// Keys of both that could not be read, with the reason.
    pub unreadable: Vec<(String, String)>,
}

impl LoadReport {
    /// Whether every key of the model and of the checkpoint was loaded.
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.fits()
    }

    fn fits(&self) -> bool {
        self.mismatched.is_empty() && self.unreadable.is_empty()
    }

    /// A one-line summary of the errors.
    pub(crate) fn summary(&self) -> &'static str {
        let keys_fit = self.missing.is_empty() && self.unexpected.is_empty();
        match keys_fit && self.mismatched.is_empty() {
            true => "the weights cannot be read",
            false => "the weights do not fit the model",
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut section = |title: &str, found: Vec<String>| lines(f, title, found);
        let missing = self
            .missing
            .iter()
            .map(|(name, shape)| format!("{name} {shape:?}"));
        section("missing from the checkpoint", missing.collect())?;
        section("unexpected in the checkpoint", self.unexpected.clone())?;
        let shapes = self.mismatched.iter().map(|(name, expected, found)| {
            let channels = match (&expected[..], &found[..]) {
                ([a, 3, kernel @ ..], [b, channels, rest @ ..]) if a == b && kernel == rest => {
                    format!(", a layer for images of {channels} channel(s) instead of RGB")
                }
                _ => String::new(),
            };
            format!(
                "{name}: the model expects {expected:?}, the checkpoint has {found:?}{channels}"
            )
        });
        section("wrong shape", shapes.collect())?;
        let reasons = self
            .unreadable
            .iter()
            .map(|(name, reason)| format!("{name}: {reason}"));
        section("unreadable", reasons.collect())
    }
}

/// A title with a count, and the first lines below it; nothing where there are none.
pub(crate) fn lines(f: &mut fmt::Formatter<'_>, title: &str, lines: Vec<String>) -> fmt::Result {
    const MOST: usize = 20;
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title} ({}):", lines.len())?;
    for line in lines.iter().take(MOST) {
        writeln!(f, "  {line}")?;
    }
    match lines.len() {
        n if n > MOST => writeln!(f, "  ... and {} more", n - MOST),
        _ => Ok(()),
    }
}

/// What is said of a tensor that [is quantised](is_quantized).
pub(crate) const QUANTIZED: &str = "integers, as in a quantised model, whose scales are not read";

/// Whether a layer's tensor has signed whole numbers in the place of weights.
pub(crate) fn is_quantized(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64)
}

/// Loads tensors into a module, converted to f32.
///
/// # Errors
/// When `strict` and the keys differ, or shapes do, or data cannot be read: the module is then as it
/// was, and the report says what is wrong. Without `strict` what fits is loaded.
pub fn load_state_dict<B: Backend, M: Module<B>>(
    module: &mut M,
    tensors: StateDict,
    strict: bool,
) -> Result<LoadReport, LoadReport> {
    let mut report = LoadReport::default();
    let expected: BTreeMap<String, Vec<usize>> = parameter_shapes(module).into_iter().collect();
    let mut fitting = Vec::new();
    let read_errors = ReadErrors::default();
    for (name, tensor) in &tensors {
        let Some(shape) = expected.get(name) else {
            report.unexpected.push(name.clone());
            continue;
        };
        let found = tensor.shape.clone();
        if *shape != found {
            report.mismatched.push((name.clone(), shape.clone(), found));
            continue;
        }
        if is_quantized(tensor.dtype) {
            report.unreadable.push((name.clone(), QUANTIZED.into()));
            continue;
        }
        let as_f32 = |data: TensorData| data.convert_dtype(DType::F32);
        fitting.push(tensor.snapshot(name, found, DType::F32, &read_errors, as_f32));
    }
    let absent = expected
        .iter()
        .filter(|(name, _)| !tensors.contains_key(*name));
    report.missing = absent
        .map(|(name, shape)| (name.clone(), shape.clone()))
        .collect();
    if strict && !report.is_complete() {
        return Err(report);
    }

    let mut loaded = module.clone();
    let result = loaded.apply(fitting, None, Some(Box::new(FromTorch)), true);
    let errors = result.errors.into_iter().map(|error| match error {
        burn_store::ApplyError::LoadError { path, message } => {
            let message = read_errors.0.borrow_mut().remove(&path).unwrap_or(message);
            (path, message)
        }
        other => (String::new(), other.to_string()),
    });
    report.unreadable.extend(errors);
    if strict && !report.is_complete() {
        return Err(report);
    }
    report.loaded = result.applied;
    *module = loaded;
    Ok(report)
}

/// As [`PyTorchToBurnAdapter`], which transposes element by element: a box head's first layer takes
/// longer so than the rest of the file.
#[derive(Debug, Clone)]
struct FromTorch;

impl ModuleAdapter for FromTorch {
    fn adapt(&self, snapshot: &TensorSnapshot) -> TensorSnapshot {
        let adapted = PyTorchToBurnAdapter.adapt(snapshot);
        let linear = snapshot.module_type().as_deref() == Some("Struct:Linear");
        if !linear || snapshot.shape.num_dims() != 2 || snapshot.dtype != DType::F32 {
            return adapted;
        }
        let data = snapshot.clone_data_fn();
        TensorSnapshot::from_closure(
            Rc::new(move || Ok(transpose(data()?))),
            adapted.dtype,
            adapted.shape,
            adapted.path_stack.unwrap_or_default(),
            adapted.container_stack.unwrap_or_default(),
            adapted.tensor_id.unwrap_or_default(),
        )
    }

    fn clone_box(&self) -> Box<dyn ModuleAdapter> {
        Box::new(self.clone())
    }
}

/// The transpose of a matrix, in f32.
pub(crate) fn transpose(matrix: TensorData) -> TensorData {
    let matrix = matrix.convert_dtype(DType::F32);
    let &[rows, cols] = matrix.shape.as_slice() else {
        return matrix;
    };
    let values = matrix.as_slice().expect("it has just been made f32");
    let mut transposed = vec![0.0f32; values.len()];
    storage::transpose(values, cols, &mut transposed);
    TensorData::new(transposed, [cols, rows])
}
