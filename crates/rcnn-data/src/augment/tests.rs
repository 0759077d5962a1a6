use super::*;
use crate::random::{Purpose, generator};
use image::Rgb;
use rand::rngs::ChaCha8Rng;
use rcnn_types::boxes::{box_area, box_centre};
use rcnn_types::{BBox, Keypoints, Mask, Size, Skeleton};

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
        r#"{"scale_jitter": {"scale_range": [0.0, 1.0]}}"#,
        r#"{"scale_jitter": {"target_size": [0, 640]}}"#,
        r#"{"fixed_size_crop": {"size": [640, 100000]}}"#,
    ] {
        assert!(parse(wrong).unwrap().validate().is_err(), "{wrong}");
    }
    let error = parse(r#"{"crop": {"scale": [0, 2]}}"#).unwrap().validate();
    let expected = "crop.scale = [0.0, 2.0]: expected a range from 0 to 1";
    assert_eq!(error.unwrap_err().to_string(), expected);
}

/// A picture whose masks are its boxes, with keypoints at the left and right ends of each.
fn shaped(boxes: &[BBox]) -> Labelled {
    let mut all = picture(boxes);
    let size = Size::from_dimensions(all.image.dimensions());
    let mask = |[x1, y1, x2, y2]: &BBox| {
        let corners = [*x1, *y1, *x2, *y1, *x2, *y2, *x1, *y2].map(f64::from);
        Mask::from_polygons(&[corners.to_vec()], size)
    };
    let tips = |[x1, y1, x2, y2]: &BBox| {
        let y = (y1 + y2) / 2.0;
        Keypoints(vec![[x1 + 2.0, y, 2.0], [x2 - 2.0, y, 2.0]])
    };
    all.instances.masks = Some(boxes.iter().map(mask).collect());
    all.instances.keypoints = Some(boxes.iter().map(tips).collect());
    all
}

/// Whether masks cover what is white within their boxes, and keypoints are on it.
fn shapes_follow(picture: &Labelled) -> bool {
    let size = Size::from_dimensions(picture.image.dimensions());
    let is_white = |x: f32, y: f32| {
        // A keypoint may be on the edge of the picture.
        let (x, y) = (
            (x as u32).min(size.width as u32 - 1),
            (y as u32).min(size.height as u32 - 1),
        );
        picture.image.get_pixel(x, y).0[0] > 127
    };
    let masks = picture.instances.masks.iter().flatten();
    let masks_follow = masks
        .clone()
        .zip(&picture.instances.boxes)
        .all(|(mask, b)| {
            let [x1, y1, x2, y2] = mask.bounds();
            let near = |a: f32, b: f32| (a - b).abs() <= 1.5;
            let fits = near(x1, b[0]) && near(y1, b[1]) && near(x2, b[2]) && near(y2, b[3]);
            mask.size() == size && (mask.area() == 0 || fits)
        });
    let points = picture.instances.keypoints.iter().flatten();
    let mut points = points
        .flat_map(|points| &points.0)
        .filter(|point| point[2] > 0.0);
    let count = picture.instances.len();
    masks_follow && masks.count() == count && points.all(|[x, y, _]| is_white(*x, *y))
}

#[test]
fn flips_exchange_left_and_right() {
    let skeleton = Skeleton {
        names: ["left_tip", "right_tip"].map(String::from).into(),
        ..Skeleton::default()
    };
    let mut flipped = shaped(&BOXES[..1]);
    flip(&mut flipped, &[Skeleton::default(), skeleton]);
    assert!(shapes_follow(&flipped));
    let points = &flipped.instances.keypoints.as_ref().unwrap()[0].0;
    assert_eq!(points[..], [[42.0, 9.0, 2.0], [56.0, 9.0, 2.0]]);
    let masks = flipped.instances.masks.unwrap();
    assert_eq!(masks[0].bounds(), [40.0, 3.0, 58.0, 15.0]);
}

#[test]
fn vertical_flips_mirror_top_to_bottom() {
    let vertical = Augmentation {
        vertical_flip: 1.0,
        ..Augmentation::none()
    };
    let skeleton = Skeleton {
        names: ["left_tip", "right_tip"].map(String::from).into(),
        ..Skeleton::default()
    };
    let skeletons = [Skeleton::default(), skeleton];
    let before = shaped(&BOXES[..1]);
    let flipped = vertical.apply(before.clone(), &skeletons, &mut rng(0));
    assert!(shapes_follow(&flipped));
    assert_eq!(flipped.instances.boxes, [[2.0, 25.0, 20.0, 37.0]]);
    // A mirror makes a left hand a right one, whichever way it hangs.
    let points = &flipped.instances.keypoints.as_ref().unwrap()[0].0;
    assert_eq!(points[..], [[18.0, 31.0, 2.0], [4.0, 31.0, 2.0]]);
    let again = vertical.apply(flipped, &skeletons, &mut rng(0));
    assert_eq!(again, before);
}

#[test]
fn crops_and_mosaics_keep_masks_and_keypoints_on_their_objects() {
    let crop = IouCrop::default();
    for i in 0..100 {
        let after = crop.apply(shaped(&BOXES), &mut rng(i));
        assert!(shapes_follow(&after), "crop {i}: {:?}", after.instances);
    }
    let four = [0, 1, 2, 0].map(|i| shaped(&BOXES[i..]));
    for i in 0..50 {
        let joined = mosaic(&four, &mut rng(i));
        let masks = joined.instances.masks.as_ref().unwrap();
        assert_eq!(masks.len(), joined.instances.len());
        assert!(masks.iter().all(|mask| mask.size() == Size::new(40, 60)));
        let boxes = joined.instances.boxes.iter().zip(masks);
        for (b, mask) in boxes {
            let around = mask.bounds();
            let near = b.iter().zip(around).all(|(a, b)| (a - b).abs() <= 1.5);
            assert!(near, "mosaic {i}: {b:?}, {around:?}");
        }
    }
}

#[test]
fn pasted_objects_cover_what_is_beneath() {
    let whole = [0.0, 0.0, 60.0, 40.0];
    let (below, above) = ([10.0, 10.0, 30.0, 30.0], [20.0, 5.0, 50.0, 35.0]);
    let under = shaped(&[below, [22.0, 12.0, 28.0, 20.0]]);
    let mut over = shaped(&[above]);
    over.image.pixels_mut().for_each(|p| p.0[1] = 77);
    let mut pastes = 0;
    for i in 0..20 {
        let after = copy_paste(under.clone(), &over, &mut rng(i));
        if after == under {
            continue;
        }
        pastes += 1;
        let objects = &after.instances;
        assert_eq!(objects.boxes, [[10.0, 10.0, 20.0, 30.0], above]);
        assert_eq!(objects.labels, [1, 1]);
        assert_eq!(objects.areas, Some(vec![200.0, 900.0]));
        let points = &objects.keypoints.as_ref().unwrap()[0].0;
        assert_eq!(
            [points[0][2], points[1][2]],
            [2.0, 1.0],
            "the right one is hidden"
        );
        assert_eq!(after.image.get_pixel(25, 7).0, [255, 77, 255]);
        assert_eq!(after.image.get_pixel(12, 12).0, [255; 3]);
    }
    assert!((5..16).contains(&pastes), "{pastes}");
    // Another size is scaled; without masks nothing happens.
    let mut large = shaped(&[above]);
    large.image = imageops_double(&large.image);
    large
        .instances
        .resize(Size::new(40, 60), Size::new(80, 120));
    for i in 0..20 {
        let after = copy_paste(shaped(&[whole]), &large, &mut rng(i));
        let masks = after.instances.masks.unwrap();
        assert!(masks.iter().all(|mask| mask.size() == Size::new(40, 60)));
        assert_eq!(
            copy_paste(picture(&[below]), &over, &mut rng(i)),
            picture(&[below])
        );
        assert_eq!(
            copy_paste(under.clone(), &picture(&[below]), &mut rng(i)),
            under
        );
    }
}

fn imageops_double(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    image::imageops::resize(
        image,
        2 * width,
        2 * height,
        image::imageops::FilterType::Nearest,
    )
}

fn jittered(jitter: &Augmentation, i: u64) -> Labelled {
    jitter.apply(shaped(&BOXES), &[], &mut rng(i))
}

/// torchvision: `int(side * min(target_h / h, target_w / w) * scale)`, the scale evenly from 0.1 to 2.
#[test]
fn scale_jitter_has_torchvisions_distribution() {
    let target_size = Size::new(80, 90);
    let jitter = ScaleJitter {
        target_size,
        ..ScaleJitter::default()
    };
    let jitter = Augmentation {
        scale_jitter: Some(jitter),
        ..Augmentation::none()
    };
    let mut scales = Vec::new();
    for i in 0..500 {
        let after = jittered(&jitter, i);
        let (width, height) = after.image.dimensions();
        // 90 / 60 is less than 80 / 40.
        let scale = f64::from(width) / 90.0;
        assert!((0.09..=2.0).contains(&scale), "{scale}");
        assert!(height.abs_diff(width * 2 / 3) <= 1, "{width}x{height}");
        let [x, y] = [width as f32 / 60.0, height as f32 / 40.0];
        let [x1, y1, x2, y2] = BOXES[1];
        assert_eq!(after.instances.boxes[1], [x1 * x, y1 * y, x2 * x, y2 * y]);
        let size = Size::from_dimensions((width, height));
        let masks = after.instances.masks.unwrap();
        assert!(masks.iter().all(|mask| mask.size() == size));
        let [px, py, _] = after.instances.keypoints.unwrap()[1].0[0];
        assert_eq!([px, py], [32.0 * x, 24.0 * y]);
        scales.push(scale);
    }
    let mean = scales.iter().sum::<f64>() / 500.0;
    assert!((mean - 1.05).abs() < 0.07, "{mean}");
    let below = scales.iter().filter(|scale| **scale < 0.575).count();
    assert!((90..160).contains(&below), "a quarter of 500: {below}");
    assert!(jitter.sets_size() && !Augmentation::default().sets_size());
}

#[test]
fn fixed_size_crops_fill_what_is_missing_and_cut_what_is_too_much() {
    let crop = |height, width| Augmentation {
        fixed_size_crop: Some(FixedSizeCrop {
            size: Size::new(height, width),
            fill: [1, 2, 3],
        }),
        ..Augmentation::none()
    };
    let larger = jittered(&crop(50, 70), 0);
    assert_eq!(larger.image.dimensions(), (70, 50));
    assert_eq!(larger.instances.boxes, BOXES);
    assert_eq!(larger.image.get_pixel(60, 0).0, [1, 2, 3]);
    assert_eq!(larger.image.get_pixel(0, 40).0, [1, 2, 3]);
    assert!(shapes_follow(&larger));
    // A window of 30 x 40 at left = 30 r, all of the height; the rest is filled below.
    let (mut lefts, mut dropped) = (Vec::new(), 0);
    for i in 0..300 {
        let after = jittered(&crop(60, 30), i);
        assert_eq!(after.image.dimensions(), (30, 60));
        assert_eq!(after.image.get_pixel(0, 45).0, [1, 2, 3]);
        assert!(shapes_follow(&after), "{i}: {:?}", after.instances);
        dropped += 3 - after.instances.len();
        // The large box begins at 30, the others end at 20 and 15.
        let large = after.instances.labels.iter().position(|label| *label == 2);
        let left = large.map_or(0.0, |large| {
            let [x1, y1, _, y2] = after.instances.boxes[large];
            assert_eq!([y1, y2], [10.0, 38.0]);
            30.0 - x1
        });
        assert!((0.0..30.0).contains(&left), "{left}");
        lefts.push(left);
    }
    let mean = lefts.iter().sum::<f32>() / lefts.len() as f32;
    assert!((13.0..16.0).contains(&mean), "{mean}");
    assert!((180..320).contains(&dropped), "{dropped}");
}

/// A side of the picture that is scaled below a pixel is one.
#[test]
fn thin_pictures_can_be_jittered() {
    let thin = Labelled {
        image: RgbImage::from_pixel(1, 3000, Rgb([255; 3])),
        instances: Instances::new(vec![[0.0, 0.0, 1.0, 3000.0]], vec![1]),
    };
    let augmentation = Augmentation {
        scale_jitter: Some(ScaleJitter::default()),
        ..Augmentation::none()
    };
    for i in 0..5 {
        let after = augmentation.apply(thin.clone(), &[], &mut rng(i));
        assert_eq!(after.image.width(), 1);
        assert!(after.image.height() <= 2048);
    }
}
