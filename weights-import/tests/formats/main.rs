//! Checkpoint files of every format against what torch reads from them (`make_fixtures.py` wrote both), and files that
//! are cut, damaged, hostile or something else: an error that says which, never a panic, never a huge allocation.

mod damaged;
mod models;
mod round_trips;
mod shards;
mod tensorflow;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::tensor::TensorData;
use burn_store::{BurnpackWriter, TensorSnapshot};
use serde::Deserialize;
use weights_import::{Checkpoint, CheckpointError, Format};

/// Ends the test at an allocation that no file in it can justify.
struct Bounded;

/// Room for the largest expanded view that is written out, and a little.
const MAX_ALLOCATION: usize = 260 << 20;

// SAFETY: hands every request to the system's allocator, but for those it refuses.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MAX_ALLOCATION {
            return std::ptr::null_mut();
        }
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

#[derive(Deserialize)]
struct Expected {
    format: String,
    metadata: BTreeMap<String, String>,
    tensors: Vec<ExpectedTensor>,
}

#[derive(Deserialize)]
struct ExpectedTensor {
    name: String,
    dtype: String,
    shape: Vec<usize>,
    values: Vec<f64>,
}

fn fixture(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing", path.display());
    path
}

/// A file of these bytes, removed with the guard.
fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// Opens and reads everything.
fn read(path: &Path) -> Result<Vec<TensorData>, CheckpointError> {
    Checkpoint::open(path)?
        .iter()
        .map(|(_, tensor)| tensor.data())
        .collect()
}

fn error(path: &Path) -> CheckpointError {
    match read(path) {
        Ok(_) => panic!("{} should be refused", path.display()),
        Err(error) => error,
    }
}

/// A zip archive.
fn entries(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut archive = zip::ZipWriter::new(Cursor::new(vec![]));
    for (name, bytes) in entries {
        archive.start_file(*name, options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn burnpack() -> Vec<u8> {
    let snapshot = |path: &str, data: TensorData| {
        TensorSnapshot::from_data(
            data,
            path.split('.').map(str::to_string).collect(),
            vec![],
            ParamId::new(),
        )
    };
    let writer = BurnpackWriter::new(vec![
        snapshot("rpn.weight", TensorData::from([[1.0f32, 2.0], [3.0, 4.0]])),
        snapshot("backbone.bias", TensorData::from([5i64, 6, 7])),
    ]);
    writer
        .with_metadata("config", "{}")
        .to_bytes()
        .unwrap()
        .to_vec()
}

#[test]
fn reads_what_torch_reads() {
    let expected = std::fs::read_to_string(fixture("expected.json")).unwrap();
    let expected: BTreeMap<String, Expected> = serde_json::from_str(&expected).unwrap();
    assert!(expected.len() > 10);
    for (name, expected) in expected {
        let checkpoint = Checkpoint::open(fixture(&name)).unwrap();
        assert_eq!(checkpoint.format.to_string(), expected.format, "{name}");
        assert_eq!(checkpoint.metadata, expected.metadata, "{name}");
        let names: Vec<_> = expected
            .tensors
            .iter()
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), names, "{name}");
        for tensor in &expected.tensors {
            let stored = checkpoint.get(&tensor.name).unwrap();
            let data = stored.data().unwrap();
            let context = format!("{name}: {}", tensor.name);
            assert_eq!(
                (&stored.shape, data.dtype),
                (&tensor.shape, stored.dtype),
                "{context}"
            );
            assert_eq!(stored.dtype.name(), tensor.dtype, "{context}");
            assert_eq!(
                data.iter::<f64>().collect::<Vec<_>>(),
                tensor.values,
                "{context}"
            );
        }
    }
}

#[test]
fn reads_what_burn_store_writes() {
    let file = file(&burnpack());
    let checkpoint = Checkpoint::open(file.path()).unwrap();
    assert_eq!((checkpoint.format, checkpoint.len()), (Format::Burnpack, 2));
    assert_eq!(checkpoint.metadata["config"], "{}");
    assert_eq!(
        checkpoint.names().collect::<Vec<_>>(),
        ["rpn.weight", "backbone.bias"]
    );
    let data = |name| checkpoint.get(name).unwrap().data().unwrap();
    data("rpn.weight").assert_eq(&TensorData::from([[1.0f32, 2.0], [3.0, 4.0]]), true);
    data("backbone.bias").assert_eq(&TensorData::from([5i64, 6, 7]), true);
}

#[test]
fn a_stored_tensor_outlives_its_checkpoint() {
    let tensor = Checkpoint::open(fixture("views.pth"))
        .unwrap()
        .get("transposed")
        .unwrap()
        .clone();
    assert_eq!(tensor.data().unwrap().iter::<f32>().nth(1), Some(7.0));
}

/// A mapped file would have ended the process with SIGBUS.
#[test]
fn a_file_that_is_cut_off_while_it_is_open_is_an_error() {
    for name in [
        "state_dict.pth",
        "state_dict_legacy.pth",
        "small.safetensors",
    ] {
        let copy = file(&std::fs::read(fixture(name)).unwrap());
        let checkpoint = Checkpoint::open(copy.path()).unwrap();
        copy.as_file().set_len(10).unwrap();
        for (_, tensor) in checkpoint.iter() {
            let error = tensor.data().unwrap_err();
            assert!(matches!(error, CheckpointError::Io { .. }), "{error:?}");
            let message = error.to_string();
            let path = copy.path().to_str().unwrap();
            assert!(
                message.contains("cut off") && message.contains(path),
                "{message}"
            );
        }
    }
}

/// Sparse, complex and quantised tensors, or dicts with keys of other types than text, refused the whole file, the last
/// as damaged.
#[test]
fn odd_entries_beside_the_weights_are_left_out_with_a_note() {
    for name in ["beside.pth", "beside_legacy.pth"] {
        let notes = Checkpoint::open(fixture(name)).unwrap().notes;
        let expected = [
            "`cooccurrence` is not a dense tensor but one of torch._utils._rebuild_sparse_tensor",
            "tensor `phase` is of type ComplexFloat",
            "tensor `conjugate` is of type ComplexFloat",
            "`quantized` is not a dense tensor but one of torch._utils._rebuild_qtensor",
        ];
        assert_eq!(notes.len(), expected.len(), "{name}: {notes:?}");
        for (note, expected) in notes.iter().zip(expected) {
            assert!(note.starts_with(expected), "{name}: {note}");
        }
    }
    for name in ["float8.pth", "float8.safetensors"] {
        let notes = Checkpoint::open(fixture(name)).unwrap().notes;
        let [note] = notes.as_slice() else {
            panic!("{name}: {notes:?}");
        };
        assert!(note.starts_with("tensor `tiny` is of type "), "{note}");
    }
}

#[test]
fn a_part_of_a_checkpoint_is_chosen_by_the_begin_of_its_names() {
    let whole = Checkpoint::open(fixture("wrapped_module.pth")).unwrap();
    for prefix in ["model", "model."] {
        let model = whole.within(prefix).unwrap();
        assert_eq!(model.len(), 8);
        assert!(model.get("conv.weight").is_some());
    }
    for prefix in ["mod", "model.conv.weight", "other", ""] {
        let error = whole.within(prefix).unwrap_err();
        let is_kind = matches!(error, CheckpointError::NoSuchPrefix { .. });
        assert!(is_kind, "{prefix}: {error}");
    }
}

/// A whole module without parameters, such as one of another library's making, was told by its optimizer's tensors.
#[test]
fn a_pickled_module_that_gives_no_tensors_is_named() {
    // {"model": Net() with state {"_parameters": {}, "_modules": {}}, "momentum": tensor}
    let module = b"U\x05modelcmine\nNet\n)R}(U\x0b_parameters}U\x08_modules}ub";
    let tensor = b"U\x08momentumctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010\
                   U\x03cpuK\x01tQK\0)(t\x89NtR";
    let pickle = |parts: &[&[u8]]| [b"\x80\x02}(".as_slice(), &parts.concat(), b"u."].concat();
    let open = |pickle: &[u8]| {
        let bytes = entries(&[("any/data.pkl", pickle), ("any/data/0", &[0; 4])]);
        Checkpoint::open(file(&bytes).path())
    };
    let notes = open(&pickle(&[module, tensor])).unwrap().notes;
    let expected = "`model` is a whole pickled module (mine.Net) without parameters";
    assert!(notes[0].starts_with(expected), "{notes:?}");
    let error = open(&pickle(&[module])).unwrap_err();
    assert!(matches!(error, CheckpointError::NotAStateDict { .. }));
    assert!(error.to_string().contains("mine.Net"), "{error}");
}

/// There was said to be no tensor in it.
#[test]
fn a_pickled_module_that_was_compiled_is_looked_into() {
    // OptimizedModule(Net() with state {"_parameters": {"weight": tensor}, "_modules": {}}, {})
    let pickle = b"\x80\x02ctorch._dynamo.eval_frame\nOptimizedModule\n(cmine\nNet\n)R}(U\x0b_parameters}U\x06weight\
                   ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01tQK\0)(t\
                   \x89NtRsU\x08_modules}ub}tR.";
    let bytes = entries(&[("any/data.pkl", pickle), ("any/data/0", &[0; 4])]);
    let names = Checkpoint::open(file(&bytes).path()).unwrap();
    assert_eq!(names.names().collect::<Vec<_>>(), ["weight"]);
}

#[test]
fn says_what_else_torch_saved() {
    use CheckpointError as E;
    type Check = fn(&E) -> bool;
    const BOTH: &[&str] = &[".pth", "_legacy.pth"];
    // Of what torch saves as a zip archive alone.
    const ZIP: &[&str] = &[".pth"];
    let cases: [(&str, &[&str], Check, &str); 6] = [
        (
            "tensor",
            BOTH,
            |e| matches!(e, E::NotAStateDict { .. }),
            "one tensor",
        ),
        (
            "no_tensors",
            BOTH,
            |e| matches!(e, E::NotAStateDict { .. }),
            "no tensor",
        ),
        (
            "complex",
            BOTH,
            |e| matches!(e, E::UnsupportedDType { key, .. } if key == "inner.weight"),
            "ComplexFloat",
        ),
        (
            "sparse",
            BOTH,
            |e| matches!(e, E::Unsupported { .. }),
            "_rebuild_sparse_tensor",
        ),
        (
            "script",
            ZIP,
            |e| matches!(e, E::NotAStateDict { .. }),
            "TorchScript",
        ),
        (
            "big_endian",
            ZIP,
            |e| matches!(e, E::Unsupported { .. }),
            "big-endian",
        ),
    ];
    for (name, endings, is_kind, part) in cases {
        for ending in endings {
            let file = format!("{name}{ending}");
            let error = error(&fixture(&file));
            let message = error.to_string();
            assert!(
                is_kind(&error) && message.contains(part) && message.contains(&file),
                "{error:?}: {message}"
            );
        }
    }
}

#[test]
fn says_what_is_no_checkpoint() {
    let npz = entries(&[("weights.npy", b"\x93NUMPY")]);
    let cases: [(&[u8], &str); 9] = [
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"Not found", "this is text"),
        (b"{\"message\": \"no\"}", "JSON text"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\x01\x02", "its first bytes are [01, 02]"),
        (&[0; 600], "a run of zeros"),
        (&npz, "a zip archive that torch.save did not write"),
        (
            &std::fs::read(fixture("plain.pkl")).unwrap(),
            "a Python pickle that torch.save did not write",
        ),
    ];
    for (bytes, part) in cases {
        let error = error(file(bytes).path());
        assert!(
            matches!(error, CheckpointError::UnknownFormat { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(matches!(
        error(file(b"").path()),
        CheckpointError::Empty { .. }
    ));
    assert!(matches!(
        error(Path::new("no/such/file.pth")),
        CheckpointError::Io { .. }
    ));
    let folder = tempfile::tempdir().expect("a folder");
    let error = error(folder.path()).to_string();
    assert!(
        error.contains("a folder without a TensorFlow model"),
        "{error}"
    );
}
