//! Files that are cut, flipped or made to harm.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use burn::tensor::{BoolStore, DType};
use rcnn_backbone::{ResNetArch, ResNetFpnConfig};
use rcnn_detector::FasterRcnnConfig;
use rcnn_ops::backend_types::Flex;
use weights_import::{CheckpointError, Precision, Weights, WeightsError};

use crate::models::{DEVICE, small_model, torch_shapes, write_shapes};
use crate::{burnpack, entries, error, file, fixture, read};

/// A generator of numbers below a limit, the same in every run.
fn random() -> impl FnMut(usize) -> usize {
    let mut state = 1u64;
    move |below: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    }
}

/// A byte damaged in one of several ways.
fn damage(byte: u8, random: &mut impl FnMut(usize) -> usize) -> u8 {
    match random(3) {
        0 => byte ^ 1 << random(8),
        1 => [0, 0x7f, 0x80, 0xff][random(4)],
        _ => random(256) as u8,
    }
}

/// A `torch.save` archive of this pickle, and of one storage `0`.
fn archive(pickle: &[u8], storage: &[u8]) -> Vec<u8> {
    entries(&[("any/data.pkl", pickle), ("any/data/0", storage)])
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
        "nested_module.pth",
        "beside.pth",
        "beside_legacy.pth",
        "small.safetensors",
        "float8.safetensors",
    ] {
        files.push((name, std::fs::read(fixture(name)).unwrap()));
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("damaged");
    let mut random = random();
    for (name, bytes) in files {
        std::fs::write(&path, &bytes).unwrap();
        let mut file = File::options().write(true).open(&path).unwrap();
        for length in (0..bytes.len()).rev() {
            file.set_len(length as u64).unwrap();
            assert!(read(&path).is_err(), "{name} cut to {length} bytes");
        }
        for _ in 0..600 {
            let mut damaged = bytes.clone();
            for _ in 0..1 + random(3) {
                let at = random(damaged.len());
                damaged[at] = damage(damaged[at], &mut random);
            }
            // In place: a file that is truncated and written again is flushed to the disk by some file systems.
            file.rewind().unwrap();
            file.write_all(&damaged).unwrap();
            let _ = read(&path);
        }
    }
}

/// A small detector with everything that torchvision's have, to be recognised by its shapes.
fn recognizable() -> FasterRcnnConfig {
    let backbone = ResNetFpnConfig {
        arch: ResNetArch::ResNet18,
        out_channels: 8,
        ..Default::default()
    };
    FasterRcnnConfig::new(backbone, 3)
}

/// Opens a file as a detector's and loads it.
fn load(path: &Path) -> Result<(), WeightsError> {
    Weights::open(path)?.load::<Flex>(&DEVICE).map(drop)
}

#[test]
fn recognition_and_loading_survive_every_cut_and_flipped_byte() {
    let folder = tempfile::tempdir().unwrap();
    let recognized = folder.path().join("recognized.safetensors");
    write_shapes(&recognized, &torch_shapes(&recognizable()));
    let stored = folder.path().join("stored.bpk");
    let weights = Weights::from_model(&small_model());
    weights.write_burnpack(&stored, Precision::F16).unwrap();
    let mut random = random();
    for path in [recognized, stored] {
        load(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let length = match path.extension().unwrap().to_str() {
            Some("bpk") => u32::from_le_bytes(bytes[6..10].try_into().unwrap()) as u64 + 10,
            _ => u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 8,
        };
        let header = &bytes[..length as usize];
        let mut file = File::options().write(true).open(&path).unwrap();
        let mut write = |at: usize, byte: u8| {
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(&[byte]).unwrap();
        };
        for _ in 0..600 {
            let at: Vec<usize> = (0..1 + random(3)).map(|_| random(header.len())).collect();
            at.iter()
                .for_each(|&at| write(at, damage(header[at], &mut random)));
            let _ = load(&path);
            at.iter().for_each(|&at| write(at, header[at]));
        }
        load(&path).unwrap();
        for length in [bytes.len() - 1, header.len()]
            .into_iter()
            .chain((0..header.len()).rev())
        {
            file.set_len(length as u64).unwrap();
            assert!(
                load(&path).is_err(),
                "{} cut to {length} bytes",
                path.display()
            );
        }
    }
}

#[test]
fn odd_shapes_of_a_detectors_tensors_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.safetensors");
    let shapes = torch_shapes(&recognizable());
    let names = shapes.iter().map(|(name, _)| name.as_str());
    // What networks are told by; of the body, that is its first block.
    let decisive = |name: &&str| {
        name.ends_with("weight")
            && (!name.contains(".body.") || name.contains("conv1") || name.contains("layer1.0"))
    };
    for (at, name) in names.enumerate().filter(|(_, name)| decisive(name)) {
        let (_, shape) = &shapes[at];
        let with = |first: usize| [&[first], &shape[1..]].concat();
        let odd = [
            vec![],
            vec![0],
            vec![1],
            with(0),
            with(1),
            with(2 * shape[0]),
            vec![usize::MAX, 0],
            shape[1..].to_vec(),
            [shape.as_slice(), &[1]].concat(),
            shape.iter().rev().copied().collect(),
        ];
        for odd in odd.into_iter().filter(|odd| odd != shape) {
            let mut shapes = shapes.clone();
            shapes[at].1 = odd.clone();
            write_shapes(&path, &shapes);
            let error = load(&path).expect_err("another shape").to_string();
            assert!(error.contains("odd.safetensors"), "{name} {odd:?}: {error}");
        }
    }
}

#[test]
fn reads_legacy_pickles_that_are_longer_than_the_first_look() {
    let mut object = pickle("FloatStorage", 1, b"K\0", b"", b"");
    object.pop();
    object.extend(b"U\x01xX");
    object.extend((3u32 << 20).to_le_bytes());
    object.resize(object.len() + (3 << 20), b'x');
    object.extend(b"s.");
    let file = file(
        &[
            b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".as_slice(),
            &object,
            b"\x80\x02]U\x010a.",
            &1u64.to_le_bytes(),
            &2.5f32.to_le_bytes(),
        ]
        .concat(),
    );
    let data = &read(file.path()).unwrap()[0];
    assert_eq!(data.as_slice::<f32>().unwrap(), [2.5]);
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
fn refuses_a_burnpack_range_that_ends_before_it_begins() {
    let mut bytes = burnpack();
    // The offsets [0, 16] of the first tensor, as CBOR.
    let at = bytes
        .windows(3)
        .position(|window| window == [0x82, 0, 16])
        .unwrap();
    bytes[at + 1..at + 3].copy_from_slice(&[16, 0]);
    let error = error(file(&bytes).path());
    assert!(
        matches!(error, CheckpointError::Corrupt { .. }),
        "{error:?}"
    );
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

/// What `torch.save([model.state_dict(), epoch])` and its tuple write was said to hold no dict.
#[test]
fn a_state_dict_in_a_list_or_a_tuple_is_read() {
    let plain = pickle("FloatStorage", 2, b"K\0", b"K\x02", b"K\x01");
    let dict = &plain[2..plain.len() - 1];
    for (start, end) in [(&b"]("[..], &b"K\x03e."[..]), (b"(", b"K\x03t.")] {
        let pickle = [b"\x80\x02", start, dict, end].concat();
        let file = file(&archive(&pickle, &[0; 8]));
        let checkpoint = weights_import::Checkpoint::open(file.path()).unwrap();
        assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["0.w"]);
    }
    let number = error(file(&archive(b"\x80\x02K\x03.", &[])).path());
    assert!(
        number.to_string().contains("does not hold a dict"),
        "{number}"
    );
}

/// As files that are no `torch.save`'s of tensors are: what is in them is said.
#[test]
fn arrays_of_numpy_in_the_place_of_tensors_are_named() {
    let array = b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\n(tRs.";
    let error = error(file(&archive(array, &[])).path()).to_string();
    assert!(error.contains("NumPy arrays"), "{error}");
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
    // One list of a thousand pairs, made a dict of a hundred thousand times.
    let mut copies = b"ccollections\nOrderedDict\nq\0]q\x01(".to_vec();
    copies.extend(b"K\x01K\x01\x86".repeat(1000));
    copies.extend(b"e\x85q\x01");
    copies.extend(b"h\0h\x01R".repeat(100_000));
    copies.push(b'.');
    for bytes in [circle, archive(&tower, &[]), archive(&copies, &[])] {
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

/// They were taken for weights.
#[test]
fn whole_numbers_of_a_quantised_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("int8.safetensors");
    write_shapes(&path, &torch_shapes(&recognizable()));
    load(&path).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let (from, to) = (b"\"U8\"", b"\"I8\"");
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
        }
    }
    std::fs::write(&path, bytes).unwrap();
    let message = load(&path).unwrap_err().to_string();
    assert!(message.contains("as in a quantised model"), "{message}");
}
