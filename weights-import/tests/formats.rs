//! Checkpoint files of every format against what torch reads from them (`make_fixtures.py` wrote both), and files that
//! are cut, damaged, hostile or something else: an error that says which, never a panic, never a huge allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::tensor::{BoolStore, DType, TensorData};
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
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
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

/// A `torch.save` archive of this pickle, and of one storage `0`.
fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    entries(&[("any/data.pkl", pickle), ("any/data/0", storage)])
}

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

/// A pickle of `{"w": tensor}`, a view of storage `0` of `count` elements, its sizes and strides as opcodes.
fn pickle(class: &str, count: u8, offset: &[u8], size: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut pickle =
        format!("\x02}}U\x01wctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\n{class}\n")
            .into_bytes();
    pickle.insert(0, 0x80);
    pickle.extend(b"U\x010U\x03cpuK");
    pickle.extend([count, b't', b'Q']);
    pickle.extend([offset, b"(", size, b"t(", stride, b"t\x89Nt"].concat());
    pickle.extend(b"Rs.");
    pickle
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

#[test]
fn says_what_else_torch_saved() {
    use CheckpointError as E;
    let cases: [(&str, fn(&E) -> bool, &str); 8] = [
        (
            "module",
            |e| matches!(e, E::NotAStateDict { .. }),
            "module (__main__.Net); save model.state_dict()",
        ),
        (
            "wrapped_module",
            |e| matches!(e, E::NotAStateDict { .. }),
            "module (__main__.Net)",
        ),
        (
            "tensor",
            |e| matches!(e, E::NotAStateDict { .. }),
            "one tensor",
        ),
        (
            "no_tensors",
            |e| matches!(e, E::NotAStateDict { .. }),
            "no tensor",
        ),
        (
            "complex",
            |e| matches!(e, E::UnsupportedDType { key, .. } if key == "inner.weight"),
            "ComplexFloat",
        ),
        (
            "sparse",
            |e| matches!(e, E::Unsupported { .. }),
            "_rebuild_sparse_tensor",
        ),
        (
            "script",
            |e| matches!(e, E::NotAStateDict { .. }),
            "TorchScript",
        ),
        (
            "big_endian",
            |e| matches!(e, E::Unsupported { .. }),
            "big-endian",
        ),
    ];
    for (name, is_kind, part) in cases {
        for file in [format!("{name}.pth"), format!("{name}_legacy.pth")] {
            let path = fixture(&file);
            if path.exists() {
                let error = error(&path);
                let message = error.to_string();
                assert!(
                    is_kind(&error) && message.contains(part) && message.contains(&file),
                    "{error:?}: {message}"
                );
            }
        }
    }
}

#[test]
fn says_what_is_no_checkpoint() {
    let npz = entries(&[("weights.npy", b"\x93NUMPY")]);
    let cases: [(&[u8], &str); 9] = [
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"Not found", "this is text"),
        (b"{\"message\": \"no\"}", "a JSON file"),
        (b"version https://git-lfs", "a Git LFS pointer"),
        (b"\x1f\x8b\x08", "a gzip archive"),
        (b"\x01\x02", "begins with the bytes [01, 02]"),
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
        error(&fixture("missing.pth")),
        CheckpointError::Io { .. }
    ));
    assert!(matches!(error(&fixture("")), CheckpointError::Io { .. }));
}

#[test]
fn says_what_a_cut_file_lacks() {
    let cut = |name: &str, by: usize| {
        let bytes = std::fs::read(fixture(name)).unwrap();
        error(file(&bytes[..bytes.len() - by]).path())
    };
    for (name, by, part) in [
        (
            "state_dict.pth",
            10,
            "a zip archive with its directory at the end",
        ),
        ("state_dict_legacy.pth", 3, "8 bytes of storage"),
        (
            "small.safetensors",
            3,
            "6 bytes of tensor `a.bias` expected, 3 bytes found",
        ),
    ] {
        let error = cut(name, by);
        assert!(
            matches!(error, CheckpointError::Truncated { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
    let short = error(
        file(&archive(
            &pickle("FloatStorage", 9, b"K\0", b"K\x03K\x03", b"K\x03K\x01"),
            &[0; 35],
        ))
        .path(),
    );
    assert!(
        short
            .to_string()
            .contains("36 bytes of storage `0` expected, 35 bytes found"),
        "{short}"
    );
}

#[test]
fn refuses_every_cut_and_survives_every_flipped_byte() {
    let mut files = vec![("burnpack", burnpack())];
    for name in [
        "views.pth",
        "dtypes.pth",
        "nested.pth",
        "deflated.pth",
        "protocol5.pth",
        "views_legacy.pth",
        "dtypes_legacy.pth",
        "nested_legacy.pth",
        "module_legacy.pth",
        "small.safetensors",
    ] {
        files.push((name, std::fs::read(fixture(name)).unwrap()));
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("damaged");
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for (name, bytes) in files {
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            assert!(read(&path).is_err(), "{name} cut to {length} bytes");
        }
        for _ in 0..600 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(3) {
                let at = random(damaged.len());
                damaged[at] = match random(3) {
                    0 => damaged[at] ^ 1 << random(8),
                    1 => [0, 0x7f, 0x80, 0xff][random(4)],
                    _ => random(256) as u8,
                };
            }
            std::fs::write(&path, &damaged).unwrap();
            let _ = read(&path);
        }
    }
}

#[test]
fn refuses_views_that_leave_their_storage() {
    let refused = |offset: &[u8], size: &[u8], stride: &[u8]| {
        let file = file(&archive(
            &pickle("FloatStorage", 4, offset, size, stride),
            &[0; 16],
        ));
        matches!(read(file.path()), Err(CheckpointError::Corrupt { .. }))
    };
    assert!(!refused(b"K\0", b"K\x02K\x02", b"K\x01K\x02"));
    assert!(refused(b"K\x01", b"K\x04", b"K\x01"), "one past the end");
    assert!(refused(b"K\0", b"K\x02", b"K\x04"), "a stride past the end");
    assert!(
        refused(b"K\0", b"J\xff\xff\xff\xff", b"K\x01"),
        "a negative size"
    );
    assert!(
        refused(b"K\0", b"K\x02K\x02", b"K\x01"),
        "sizes without strides"
    );
    let huge: &[u8] = b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f";
    assert!(
        refused(b"K\0", huge, b"K\0K\0"),
        "an expanded view of 16 EiB"
    );
    assert!(
        refused(b"K\0", &[huge, huge].concat(), b"K\0K\0K\0K\0"),
        "more elements than a usize counts"
    );
    assert!(
        refused(
            b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
            b"K\x02",
            b"J\xff\xff\xff\x7f"
        ),
        "an end past usize"
    );
    // No elements, wherever they are said to be.
    assert!(!refused(b"J\xff\xff\xff\x7f", b"K\0K\x02", b"K\x01K\x01"));
}

#[test]
fn makes_bools_of_any_bytes() {
    let file = file(&archive(
        &pickle("BoolStorage", 3, b"K\0", b"K\x03", b"K\x01"),
        &[0, 1, 77],
    ));
    let data = &read(file.path()).unwrap()[0];
    assert_eq!(data.dtype, DType::Bool(BoolStore::Native));
    assert_eq!(data.as_slice::<bool>().unwrap(), [false, true, true]);
}

#[test]
fn ends_where_dicts_hold_themselves_or_multiply() {
    let circle = archive(b"}q\0U\x01ah\0s.", &[]);
    // Forty dicts, each holding the one before it three times: 3^40 ways to the innermost.
    let mut tower = b"}q\0".to_vec();
    for _ in 0..40 {
        tower.extend(b"}(U\x01ah\0U\x01bh\0U\x01ch\0uq\0");
    }
    tower.push(b'.');
    for bytes in [circle, archive(&tower, &[])] {
        let error = error(file(&bytes).path());
        assert!(
            matches!(error, CheckpointError::Corrupt { .. }),
            "{error:?}"
        );
    }
}

#[test]
fn refuses_two_tensors_of_one_name() {
    let one = pickle("FloatStorage", 1, b"K\0", b"", b"");
    let tensor = &one[6..one.len() - 2]; // after `}` and the key, before SETITEM and STOP
    let twice = [&one[..one.len() - 1], b"U\x01w", tensor, b"s."].concat();
    assert!(read(file(&archive(&one, &[0; 4])).path()).is_ok());
    let error = error(file(&archive(&twice, &[0; 4])).path());
    assert!(
        error.to_string().contains("two tensors are called `w`"),
        "{error}"
    );
}
