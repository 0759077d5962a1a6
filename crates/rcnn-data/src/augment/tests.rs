use super::*;
use crate::random::{Purpose, generator};
use image::Rgb;
use rand::rngs::ChaCha8Rng;
use rcnn_types::BBox;
use rcnn_types::boxes::{box_area, box_centre};

fn rng(item: u64) -> ChaCha8Rng {
    generator(3, Purpose::Augmentation, 0, item)
}

/// A black picture with white boxes.
fn picture(boxes: &[BBox]) -> Labelled {
    let mut image = RgbImage::new(60, 40);
    for b in boxes {
        for (x, y) in
            (b[0] as u32..b[2] as u32).flat_map(|x| (b[1] as u32..b[3] as u32).map(move |y| (x, y)))
        {
            image.put_pixel(x, y, Rgb([255; 3]));
        }
    }
    Labelled {
        image,
        instances: Instances::new(boxes.to_vec(), (1..=boxes.len()).collect()),
    }
}

/// Whether the middle of each box shows it, and how bright the picture is elsewhere doesn't matter.
fn boxes_follow(picture: &Labelled) -> bool {
    let (width, height) = picture.image.dimensions();
    let within =
        |b: &BBox| b[0] >= 0.0 && b[1] >= 0.0 && b[2] <= width as f32 && b[3] <= height as f32;
    let shown = |b: &BBox| {
        let [x, y] = box_centre(b);
        picture.image.get_pixel(x as u32, y as u32).0[0] > 127
    };
    let boxes = &picture.instances.boxes;
    boxes.len() == picture.instances.labels.len()
        && boxes
            .iter()
            .all(|b| within(b) && box_area(b) > 0.0 && shown(b))
}

const BOXES: [BBox; 3] = [
    [2.0, 3.0, 20.0, 15.0],
    [30.0, 10.0, 58.0, 38.0],
    [5.0, 20.0, 15.0, 39.0],
];

#[test]
fn flips_move_boxes() {
    let mut flipped = picture(&BOXES[..1]);
    flip(&mut flipped, &[]);
    assert_eq!(flipped.instances.boxes, [[40.0, 3.0, 58.0, 15.0]]);
    assert_eq!(flipped.image.get_pixel(57, 3).0, [255; 3]);
    assert_eq!(flipped.image.get_pixel(58, 3).0, [0; 3]);
    flip(&mut flipped, &[]);
    assert_eq!(flipped, picture(&BOXES[..1]));
}

#[test]
fn nothing_is_changed_by_none() {
    let before = picture(&BOXES);
    assert_eq!(
        Augmentation::none().apply(before.clone(), &[], &mut rng(0)),
        before
    );
}

#[test]
fn flips_are_as_likely_as_asked() {
    let augmentation = Augmentation::default();
    let before = picture(&BOXES);
    let flipped =
        (0..400).filter(|&i| augmentation.apply(before.clone(), &[], &mut rng(i)) != before);
    assert!((160..240).contains(&flipped.count()));
}

#[test]
fn crops_keep_boxes_on_their_objects() {
    let crop = IouCrop::default();
    let mut cropped = 0;
    for i in 0..200 {
        let after = crop.apply(picture(&BOXES), &mut rng(i));
        assert!(boxes_follow(&after), "{i}: {:?}", after.instances.boxes);
        assert!(!after.instances.boxes.is_empty());
        cropped += usize::from(after.image.dimensions() != (60, 40));
    }
    assert!((100..200).contains(&cropped), "{cropped}");
    assert_eq!(crop.apply(picture(&[]), &mut rng(0)), picture(&[]));
}

#[test]
fn mosaics_keep_boxes_on_their_objects() {
    let four = [0, 1, 2, 0].map(|i| picture(&BOXES[i..]));
    let mut kept = 0;
    for i in 0..50 {
        let joined = mosaic(&four, &mut rng(i));
        assert_eq!(joined.image.dimensions(), (60, 40));
        assert!(boxes_follow(&joined), "{i}: {:?}", joined.instances.boxes);
        kept += joined.instances.boxes.len();
    }
    assert!(kept > 50 * 4, "{kept}");
}

/// It was scaled whole before it was cut: to 600 x 1,800,000 pixels, several gigabytes.
#[test]
fn a_mosaic_of_thin_pictures_stays_small() {
    let large = Labelled {
        image: RgbImage::new(600, 400),
        instances: Instances::default(),
    };
    let thin = |width, height| Labelled {
        image: RgbImage::from_pixel(width, height, Rgb([255; 3])),
        instances: Instances::new(vec![[0.0, 0.0, width as f32, height as f32]], vec![1]),
    };
    let four = [large, thin(1, 3000), thin(3000, 1), thin(1, 1)];
    for i in 0..5 {
        let joined = mosaic(&four, &mut rng(i));
        assert_eq!(joined.image.dimensions(), (600, 400));
        assert!(boxes_follow(&joined), "{i}: {:?}", joined.instances.boxes);
    }
}

/// Shapes that are not extreme are scaled whole, and so as they were before.
#[test]
fn mosaics_of_ordinary_pictures_keep_their_bits() {
    let four = [0, 1, 2, 0].map(|i| picture(&BOXES[i..]));
    let sum = |image: &RgbImage| image.iter().map(|&v| u64::from(v)).sum::<u64>();
    let sums = [0, 1, 2].map(|i| sum(&mosaic(&four, &mut rng(i)).image));
    assert_eq!(sums, [762495, 840117, 752049]);
}

/// It underflowed: a window larger than the picture.
#[test]
fn a_crop_larger_than_the_picture_is_the_picture() {
    let crop = IouCrop {
        scale: [0.0, 2.0],
        ..IouCrop::default()
    };
    for i in 0..50 {
        let after = crop.apply(picture(&BOXES), &mut rng(i));
        assert!(boxes_follow(&after), "{i}: {:?}", after.instances.boxes);
    }
}

#[test]
fn colours_change_and_boxes_stay() {
    let photometric = Some(Photometric::default());
    let augmentation = Augmentation {
        photometric,
        ..Augmentation::none()
    };
    let mut before = picture(&BOXES);
    before
        .image
        .pixels_mut()
        .for_each(|p| p.0 = [p.0[0] / 2 + 20, 90, 200]);
    let after: Vec<Labelled> = (0..20)
        .map(|i| augmentation.apply(before.clone(), &[], &mut rng(i)))
        .collect();
    assert!(after.iter().filter(|a| a.image != before.image).count() > 15);
    assert!(after.iter().all(|a| a.instances == before.instances));
    assert_eq!(
        after[3],
        augmentation.apply(before.clone(), &[], &mut rng(3))
    );
}

#[test]
fn settings_are_validated() {
    let parse = |text: &str| serde_json::from_str::<Augmentation>(text);
    let read = parse(r#"{"crop": {"trials": 5}, "min_sizes": [640, 800]}"#).unwrap();
    assert_eq!(read.crop.as_ref().unwrap().trials, 5);
    assert_eq!(read.horizontal_flip, 0.5);
    read.validate().unwrap();
    assert!(parse(r#"{"flip": 1}"#).is_err());
    for wrong in [
        r#"{"horizontal_flip": 1.5}"#,
        r#"{"min_sizes": [0]}"#,
        r#"{"crop": {"scale": [0.9, 0.3]}}"#,
        r#"{"crop": {"overlaps": [2.0]}}"#,
        r#"{"photometric": {"hue": [-0.6, 0.1]}}"#,
    ] {
        assert!(parse(wrong).unwrap().validate().is_err(), "{wrong}");
    }
    let error = parse(r#"{"crop": {"scale": [0, 2]}}"#).unwrap().validate();
    let expected = "crop.scale is [0.0, 2.0], expected a range from 0 to 1";
    assert_eq!(error.unwrap_err().to_string(), expected);
}
