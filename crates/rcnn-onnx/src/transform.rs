//! From what a file takes to a padded batch.

mod scale;

use rcnn_detector::{GeneralizedRcnnTransform, ResizeRule};
use rcnn_types::Size;

use crate::builder::{Builder, Value};
use crate::options::FixedShape;
use crate::proto::{Attribute, Dimension, ElementType};
use scale::scaled;

/// A batch as the networks take it.
pub(crate) struct Batch {
    /// `[N, 3, H, W]`, normalised and padded.
    pub(crate) images: Value,
    /// `[2]`: height and width, padded.
    pub(crate) padded: Value,
    /// `[N, 4]`: width, height, width, height of each image.
    pub(crate) limits: Value,
    /// `[N, 2]`: height and width of each image.
    sizes: Value,
    /// `[4]`: what boxes are multiplied by to be in pixels of what the file takes.
    pub(crate) restore: Option<Value>,
}

impl Batch {
    /// The largest height (axis 0) or width (axis 1) of the images.
    pub(crate) fn largest(&self, axis: i64, b: &mut Builder) -> Value {
        let sides = b.column(&self.sizes, axis);
        b.reduce("ReduceMax", &sides, &[0], false)
    }
}

/// Sizes of an input of images.
fn dimensions(fixed: Option<FixedShape>) -> [Dimension; 4] {
    use Dimension::Fixed;
    match fixed {
        Some(FixedShape { batch, size }) => [
            Fixed(batch),
            Fixed(3),
            Fixed(size.height),
            Fixed(size.width),
        ],
        None => {
            let [batch, height, width] = ["batch", "height", "width"].map(Dimension::free);
            [batch, Fixed(3), height, width]
        }
    }
}

/// Images that are normalised and nothing else.
pub(crate) fn normalised_input(
    transform: &GeneralizedRcnnTransform,
    fixed: Option<FixedShape>,
    b: &mut Builder,
) -> Value {
    let images = b.input("images", ElementType::Float, &dimensions(fixed));
    b.scope("transform");
    normalise(transform, &images, b)
}

/// Images of a batch and the size of each: normalised, cleared around the images and padded.
pub(crate) fn tensor_input(
    transform: &GeneralizedRcnnTransform,
    fixed: Option<FixedShape>,
    b: &mut Builder,
) -> Batch {
    let shape = dimensions(fixed);
    let images = b.input("images", ElementType::Float, &shape);
    let [batch, ..] = shape;
    let sizes = [batch, Dimension::Fixed(2)];
    let sizes = b.input("image_sizes", ElementType::Int64, &sizes);
    b.scope("transform");
    let shape = b.shape(&images);
    let size = b.slice(&shape, 0, 2, 4);
    let zero = b.int(0);
    let given = b.op("Greater", [&sizes, &zero]);
    let sizes = b.op("Where", [&given, &sizes, &size]);
    let sizes = b.op("Min", [&sizes, &size]);

    let normalised = normalise(transform, &images, b);
    // [N, 1, H, W]: whether a pixel is one of the image.
    let [rows, columns] = [0, 1].map(|axis| {
        let side = b.slice(&size, 0, axis, axis + 1);
        let index = b.range(&side);
        let index = b.unsqueeze(&index, if axis == 0 { &[0, 1, 3] } else { &[0, 1, 2] });
        let end = b.slice(&sizes, 1, axis, axis + 1);
        let end = b.unsqueeze(&end, &[2, 3]);
        b.op("Less", [&index, &end])
    });
    let inside = b.op("And", [&rows, &columns]);
    let nothing = b.float(0.0);
    let cleared = b.op("Where", [&inside, &normalised, &nothing]);

    let (images, padded) = pad(transform, &cleared, &size, b);
    let sizes = b.cast(&sizes, ElementType::Float);
    let order = b.ints(&[1, 0, 1, 0]);
    Batch {
        images,
        padded,
        limits: b.gather(&sizes, &order, 1),
        sizes,
        restore: None,
    }
}

/// A picture of bytes: resized, normalised and padded.
pub(crate) fn image_input(
    transform: &GeneralizedRcnnTransform,
    fixed: Option<FixedShape>,
    b: &mut Builder,
) -> Batch {
    let [_, channels, height, width] = dimensions(fixed);
    let image = b.input("image", ElementType::Uint8, &[height, width, channels]);
    b.scope("transform");
    let shape = b.shape(&image);
    let size = b.slice(&shape, 0, 0, 2);
    let resized = match (transform.fixed_size, fixed) {
        (None, None) => match transform.resize_rule {
            ResizeRule::Torchvision => resized_size(transform, &size, b),
            _ => size_by_tensorflow(transform, &size, b),
        },
        (Some(size), _) => sides(size, b),
        (None, Some(fixed)) => sides(transform.resized(fixed.size), b),
    };
    let pixels = b.cast(&image, ElementType::Float);
    let most = b.float(255.0);
    let pixels = b.op("Div", [&pixels, &most]);
    let pixels = b.transpose(&pixels, &[2, 0, 1]);
    let pixels = b.unsqueeze(&pixels, &[0]);
    let normalised = normalise(transform, &pixels, b);
    let start = b.ints(&[1, 3]);
    let shape = b.concat(&[&start, &resized], 0);
    let none = Value::none();
    let positions = match transform.resize_rule {
        ResizeRule::Torchvision => "half_pixel",
        ResizeRule::Tensorflow2018 | ResizeRule::Tensorflow2019 => "asymmetric",
    };
    let attributes = [
        Attribute::Text("mode", "linear"),
        Attribute::Text("coordinate_transformation_mode", positions),
    ];
    let images = b.node("Resize", &[&normalised, &none, &none, &shape], &attributes);
    let (images, padded) = pad(transform, &images, &resized, b);

    let [from, to] = [&size, &resized].map(|size| b.cast(size, ElementType::Float));
    let order = b.ints(&[1, 0, 1, 0]);
    let ratio = b.op("Div", [&from, &to]);
    let limits = b.gather(&to, &order, 0);
    Batch {
        images,
        padded,
        limits: b.unsqueeze(&limits, &[0]),
        sizes: b.unsqueeze(&to, &[0]),
        restore: Some(b.gather(&ratio, &order, 0)),
    }
}

fn sides(size: Size, b: &mut Builder) -> Value {
    b.ints(&[size.height as i64, size.width as i64])
}

/// torchvision's size for an image of any size `[2]`.
fn resized_size(transform: &GeneralizedRcnnTransform, size: &Value, b: &mut Builder) -> Value {
    let least = transform.min_size.last().copied().unwrap_or(1);
    let [shorter, longer] = shorter_and_longer(size, b);
    let [by_shorter, by_longer] = [(&shorter, least), (&longer, transform.max_size)]
        .map(|(side, limit)| scaled(size, side, limit as i64, b));
    b.op("Min", [&by_shorter, &by_longer])
}

/// The shorter and the longer side, `[1]` each, of a size `[2]`. With ReduceMin and ReduceMax instead, OpenVINO 2026.4
/// inverts TensorFlow's scale.
fn shorter_and_longer(size: &Value, b: &mut Builder) -> [Value; 2] {
    let sides = [0, 1].map(|side| b.slice(size, 0, side, side + 1));
    ["Min", "Max"].map(|operator| b.op(operator, [&sides[0], &sides[1]]))
}

/// TensorFlow's size for an image of any size `[2]`, in single precision as there.
fn size_by_tensorflow(
    transform: &GeneralizedRcnnTransform,
    size: &Value,
    b: &mut Builder,
) -> Value {
    let least = transform.min_size.last().copied().unwrap_or(1) as f32;
    let (least, most) = (b.float(least), b.float(transform.max_size as f32));
    let exact = b.cast(size, ElementType::Float);
    let [shorter, longer] = shorter_and_longer(&exact, b);
    let [shorter, longer] =
        [(&least, &shorter), (&most, &longer)].map(|(limit, side)| b.op("Div", [limit, side]));
    let by = |scale: &Value, b: &mut Builder| {
        let sides = b.op("Mul", [&exact, scale]);
        b.op("Round", [&sides])
    };
    let resized = if transform.resize_rule == ResizeRule::Tensorflow2019 {
        let scale = b.op("Min", [&shorter, &longer]);
        by(&scale, b)
    } else {
        let [large, small] = [&shorter, &longer].map(|scale| by(scale, b));
        let [_, side] = shorter_and_longer(&large, b);
        let too_large = b.op("Greater", [&side, &most]);
        b.op("Where", [&too_large, &small, &large])
    };
    let resized = b.cast(&resized, ElementType::Int64);
    let one = b.int(1);
    b.op("Max", [&resized, &one])
}

fn normalise(transform: &GeneralizedRcnnTransform, images: &Value, b: &mut Builder) -> Value {
    let [mean, std] = [
        ("image_mean", transform.image_mean),
        ("image_std", transform.image_std),
    ]
    .map(|(name, values)| b.exact_floats(name, &[1, 3, 1, 1], values.to_vec()));
    let centred = b.op("Sub", [images, &mean]);
    b.op("Div", [&centred, &std])
}

/// Zeros at right and bottom up to a size that is divisible; gives that size too.
fn pad(
    transform: &GeneralizedRcnnTransform,
    images: &Value,
    size: &Value,
    b: &mut Builder,
) -> (Value, Value) {
    let divisor = b.ints(&[transform.size_divisible as i64]);
    let negative = b.op("Neg", [size]);
    let missing = b.op("Mod", [&negative, &divisor]);
    if b.known(&missing).is_some_and(|missing| missing == [0, 0]) {
        return (images.clone(), size.clone());
    }
    let none = b.ints(&[0; 6]);
    let pads = b.concat(&[&none, &missing], 0);
    (b.op("Pad", [images, &pads]), b.op("Add", [size, &missing]))
}
