//! Batches: order, seeds, threads, and pictures that can't be loaded.

use std::sync::Arc;

use crate::common::{Folder, voc};
use rcnn_data::augment::{IouCrop, Photometric};
use rcnn_data::{Augmentation, Dataset, Example, LoadError, Loader, LoaderOptions};

fn strong() -> Augmentation {
    Augmentation {
        min_sizes: vec![640, 720, 800],
        crop: Some(IouCrop::default()),
        photometric: Some(Photometric::default()),
        mosaic: 0.5,
        ..Augmentation::default()
    }
}

/// Each of three images seven times.
fn dataset() -> (Folder, Arc<Dataset>) {
    let folder = voc();
    let mut dataset = folder.read().unwrap().dataset;
    dataset.samples = dataset.samples.iter().cycle().take(21).cloned().collect();
    (folder, Arc::new(dataset))
}

fn loaded(loader: &Loader, epoch: u64) -> Vec<Vec<Example>> {
    let batches = loader.epoch(epoch);
    batches
        .map(|batch| batch.into_iter().map(Result::unwrap).collect())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_run_on_any_threads() {
    let (_folder, dataset) = dataset();
    let with = |threads, seed| {
        let options = LoaderOptions {
            batch_size: 4,
            threads,
            seed,
            ..LoaderOptions::default()
        };
        Loader::new(dataset.clone(), strong(), options).unwrap()
    };
    let first = loaded(&with(0, 1), 0);
    assert_eq!(first.len(), 6);
    assert_eq!(
        first.iter().map(Vec::len).collect::<Vec<_>>(),
        [4, 4, 4, 4, 4, 1]
    );
    assert_eq!(loaded(&with(3, 1), 0), first);
    assert_eq!(loaded(&with(50, 1), 0), first);
    assert_ne!(loaded(&with(3, 2), 0), first);
    assert_ne!(loaded(&with(3, 1), 1), first);
    // Resumed in the middle.
    let rest: Vec<Vec<Example>> = with(2, 1)
        .epoch_from(0, 4)
        .map(|batch| batch.into_iter().map(Result::unwrap).collect())
        .collect();
    assert_eq!(rest, first[4..]);
    assert_eq!(with(2, 1).epoch_from(0, 99).count(), 0);

    let examples = first.iter().flatten();
    let mut sizes: Vec<u32> = examples.filter_map(|e| e.min_size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes, [640, 720, 800]);
    for example in first.iter().flatten() {
        let (width, height) = example.image.dimensions();
        let boxes = &example.instances.boxes;
        assert!(example.instances.validate(3).is_ok());
        for [x1, y1, x2, y2] in boxes {
            assert!(0.0 <= *x1 && x1 < x2 && *x2 <= width as f32, "{boxes:?}");
            assert!(0.0 <= *y1 && y1 < y2 && *y2 <= height as f32, "{boxes:?}");
        }
    }
}

#[test]
fn in_order_and_without_a_last_batch() {
    let (_folder, dataset) = dataset();
    let options = LoaderOptions {
        batch_size: 4,
        shuffle: false,
        drop_last: true,
        ..LoaderOptions::default()
    };
    let loader = Loader::new(dataset.clone(), Augmentation::none(), options).unwrap();
    assert_eq!(loader.batches(), 5);
    assert_eq!(loader.epoch(0).len(), 5);
    let batches = loaded(&loader, 3);
    let indices = batches.iter().flatten().map(|example| example.index);
    assert!(indices.eq(0..20));
    for example in batches.iter().flatten() {
        let sample = &dataset.samples[example.index];
        assert_eq!(example.instances, sample.instances);
        assert_eq!(
            example.image,
            image::open(&sample.image).unwrap().into_rgb8()
        );
    }
}

#[test]
fn what_cannot_be_loaded_is_named_and_the_rest_goes_on() {
    let (folder, dataset) = dataset();
    folder.file("JPEGImages/a.png", "no picture any more");
    folder.picture("JPEGImages/b.png", 20, 30);
    let options = LoaderOptions {
        batch_size: 3,
        shuffle: false,
        ..LoaderOptions::default()
    };
    let loader = Loader::new(dataset.clone(), Augmentation::default(), options).unwrap();
    for batch in loader.epoch(0) {
        let [Err(a), Err(b), Ok(_)] = &batch[..] else {
            panic!("{batch:?}")
        };
        assert!(
            matches!(a, LoadError::Decode { path, .. } if path.ends_with("a.png")),
            "{a}"
        );
        assert_eq!(a.to_string().matches("a.png").count(), 1, "named once: {a}");
        assert!(
            b.to_string()
                .ends_with("b.png: 20x30 pixels, but its boxes are for 64x48"),
            "{b}"
        );
    }
    // A decoder that panics, and an epoch that nobody finishes.
    let panics = Arc::new(|_: &std::path::Path| panic!("oops"));
    let loader = Loader::with_decode(dataset, panics, Augmentation::none(), options).unwrap();
    let first = loader.epoch(0).next().unwrap();
    assert!(
        first
            .iter()
            .all(|item| item.as_ref().unwrap_err().to_string().contains("gave up"))
    );
}

/// Such an augmentation got as far as a subtraction with overflow in a loading thread.
#[test]
fn an_augmentation_that_makes_no_sense_is_refused() {
    let (_folder, dataset) = dataset();
    let crop = IouCrop {
        scale: [0.0, 2.0],
        ..IouCrop::default()
    };
    let augmentation = Augmentation {
        crop: Some(crop),
        ..Augmentation::none()
    };
    let error = Loader::new(dataset, augmentation, LoaderOptions::default()).err();
    assert_eq!(error.unwrap().field, "crop.scale");
}

/// Sizes and pixels were read by different rules: an image that only XMP turns was of the wrong size.
#[test]
fn an_image_turned_by_xmp_is_loaded() {
    let folder = Folder::new();
    let picture = image::RgbImage::from_pixel(20, 10, image::Rgb([9; 3]));
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    let mut png = png.into_inner();
    let xmp = b"iTXtXML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation=\"6\"/>";
    let mut chunk = (xmp.len() as u32 - 4).to_be_bytes().to_vec();
    chunk.extend(xmp);
    chunk.extend(crc32(xmp).to_be_bytes());
    // Behind the header.
    png.splice(33..33, chunk);
    folder.file("images/train/a.png", png);
    folder.file("labels/train/a.txt", "0 .5 .25 1 .5\n");
    folder.file("classes.txt", "x");
    let dataset = folder.read().unwrap().accept(false).unwrap();
    assert_eq!(dataset.samples[0].instances.boxes, [[0.0, 0.0, 10.0, 10.0]]);
    let options = LoaderOptions::default();
    let loader = Loader::new(Arc::new(dataset), Augmentation::none(), options).unwrap();
    assert_eq!(loaded(&loader, 0)[0][0].image.dimensions(), (10, 20));
}

/// The checksum of a PNG's chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn repeated_pictures_are_augmented_each_in_its_own_way() {
    let (_folder, dataset) = dataset();
    let with = |threads| {
        let options = LoaderOptions {
            batch_size: 4,
            drop_last: true,
            threads,
            ..LoaderOptions::default()
        };
        let mut factors = vec![1.0; dataset.samples.len()];
        factors[5] = 6.5;
        let loader = Loader::new(dataset.clone(), strong(), options).unwrap();
        loader.with_repeat_factors(factors)
    };
    // 20 and 6.5 samples.
    let loader = with(0);
    assert_eq!(loader.batches(), 6);
    for epoch in 0..4 {
        let batches = loaded(&loader, epoch);
        assert_eq!(batches.len(), 6);
        let examples: Vec<&Example> = batches.iter().flatten().collect();
        let copies: Vec<&&Example> = examples.iter().filter(|e| e.index == 5).collect();
        assert!((4..=7).contains(&copies.len()), "{}", copies.len());
        assert!(copies.iter().any(|copy| copy.image != copies[0].image));
        // The same on any threads, and from any batch on.
        assert_eq!(loaded(&with(3), epoch), batches);
        let rest = loader.epoch_from(epoch, 4);
        let rest: Vec<Vec<Example>> = rest
            .map(|batch| batch.into_iter().map(Result::unwrap).collect())
            .collect();
        assert_eq!(rest, batches[4..]);
    }
}
