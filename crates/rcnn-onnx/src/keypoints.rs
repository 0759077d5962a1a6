//! Keypoints from heat maps (torchvision's `heatmaps_to_keypoints`) in ONNX operators, without a loop.
//!
//! torchvision enlarges each heat map to the pixels of its box and takes the largest value. Here the cells between
//! the heat map's places are ranked by their outermost pixels, and all pixels are made of the best [`CELLS`] alone.

use crate::builder::{Builder, Value};
use crate::proto::{Attribute, ElementType};

/// Cells of a heat map that are enlarged.
const CELLS: i64 = 16;
/// torch's coefficient of bicubic interpolation.
const A: f32 = -0.75;
/// Below all logits.
const NOWHERE: f32 = -3e38;

/// One axis of the boxes: where each begins, its length and its pixels, `[K, 1, 1, 1]`.
struct Axis {
    low: Value,
    length: Value,
    pixels: Value,
    /// Pixels of a cell at most, `[1]`.
    most: Value,
}

/// The pixels of cells along an axis.
struct Pixels {
    /// `[K, P, cells, pixels]`: which pixel of the box.
    index: Value,
    /// The same: whether it is one of the cell.
    inside: Value,
    /// The same: how far it is from the first of the cell's two places, 0 to 1.
    offset: Value,
}

/// Keypoints `[K, P, 3]` and their scores `[K, P]`, from heat maps `[K, P, side, side]` of boxes `[K, 4]`.
///
/// `longest` is the longest side of a box, if it is known.
pub(crate) fn keypoints(
    [maps, boxes]: [&Value; 2],
    [points, side]: [usize; 2],
    longest: Option<usize>,
    b: &mut Builder,
) -> [Value; 2] {
    let (points, side) = (points as i64, side as i64);
    let axes = [0, 1].map(|axis| box_axis(boxes, axis, side, longest, b));
    // Two more places on each side, as the outermost.
    let pads = b.ints(&[0, 0, 2, 2, 0, 0, 2, 2]);
    let padded = b.node("Pad", &[maps, &pads], &[Attribute::Text("mode", "edge")]);
    let (width, cells) = (side + 4, side + 1);
    let best = best_of_cells(&padded, &axes, points, side, b);
    let flat = b.reshape(&best, &[-1, points, cells * cells]);
    let count = b.ints(&[CELLS]);
    let [_, best] = b.nodes("TopK", &[&flat, &count], &[Attribute::Int("axis", 2)]);
    let cells = b.int(cells);
    let (row, column) = (b.op("Div", [&best, &cells]), b.op("Mod", [&best, &cells]));
    let [x, y] = [(&axes[0], &column), (&axes[1], &row)].map(|(axis, cell)| {
        let cell = b.cast(cell, ElementType::Float);
        let cell = b.unsqueeze(&cell, &[3]);
        pixels(axis, &cell, side, b)
    });

    // The sixteen values around each cell, `[K, P, CELLS, 4, 4]`.
    let wide = b.int(width);
    let start = b.op("Mul", [&row, &wide]);
    let start = b.op("Add", [&start, &column]);
    let start = b.unsqueeze(&start, &[3]);
    let around: Vec<i64> = (0..4)
        .flat_map(|i| (0..4).map(move |j| i * width + j))
        .collect();
    let around = b.ints(&around);
    let at = b.op("Add", [&start, &around]);
    let at = b.reshape(&at, &[-1, points, 16 * CELLS]);
    let values = b.reshape(&padded, &[-1, points, width * width]);
    let values = b.node(
        "GatherElements",
        &[&values, &at],
        &[Attribute::Int("axis", 2)],
    );
    let values = b.reshape(&values, &[-1, points, CELLS, 4, 4]);

    let [across, down] = [&x, &y].map(|pixels| weights(&pixels.offset, b));
    let across = b.transpose(&across, &[0, 1, 2, 4, 3]);
    let enlarged = b.op("MatMul", [&down, &values]);
    let enlarged = b.op("MatMul", [&enlarged, &across]);
    let inside = [b.unsqueeze(&y.inside, &[4]), b.unsqueeze(&x.inside, &[3])];
    let inside = b.op("And", [&inside[0], &inside[1]]);
    let nowhere = b.float(NOWHERE);
    let enlarged = b.op("Where", [&inside, &enlarged, &nowhere]);
    // [K, P, CELLS * rows * columns]
    let keep = b.ints(&[0, 0]);
    let rest = b.op("Mul", [&axes[0].most, &axes[1].most]);
    let cells = b.ints(&[CELLS]);
    let rest = b.op("Mul", [&rest, &cells]);
    let shape = b.concat(&[&keep, &rest], 0);
    let enlarged = b.op("Reshape", [&enlarged, &shape]);
    let one = b.ints(&[1]);
    let [score, place] = b.nodes("TopK", &[&enlarged, &one], &[Attribute::Int("axis", 2)]);
    // Back to cell, row and column.
    let area = b.op("Mul", [&axes[0].most, &axes[1].most]);
    let cell = b.op("Div", [&place, &area]);
    let row = b.op("Mod", [&place, &area]);
    let (row, column) = (
        b.op("Div", [&row, &axes[0].most]),
        b.op("Mod", [&place, &axes[0].most]),
    );
    let coordinate = |axis: &Axis, pixels: &Pixels, at: &Value, b: &mut Builder| {
        let at_cell = b.op("Mul", [&cell, &axis.most]);
        let at = b.op("Add", [&at_cell, at]);
        let cells = b.ints(&[CELLS]);
        let count = b.op("Mul", [&cells, &axis.most]);
        let shape = b.concat(&[&keep, &count], 0);
        let index = b.op("Reshape", [&pixels.index, &shape]);
        let index = b.node(
            "GatherElements",
            &[&index, &at],
            &[Attribute::Int("axis", 2)],
        );
        let half = b.float(0.5);
        let middle = b.op("Add", [&index, &half]);
        let step = b.op("Div", [&axis.length, &axis.pixels]);
        let [step, low] = [&step, &axis.low].map(|x| b.squeeze(x, 3));
        let offset = b.op("Mul", [&middle, &step]);
        b.op("Add", [&offset, &low])
    };
    let x_at = coordinate(&axes[0], &x, &column, b);
    let y_at = coordinate(&axes[1], &y, &row, b);
    // Every keypoint is called visible.
    let visible = b.op("Equal", [&place, &place]);
    let visible = b.cast(&visible, ElementType::Float);
    let found = b.concat(&[&x_at, &y_at, &visible], 2);
    [found, b.squeeze(&score, 2)]
}

fn box_axis(boxes: &Value, axis: i64, side: i64, longest: Option<usize>, b: &mut Builder) -> Axis {
    let [low, high] = [axis, axis + 2].map(|i| {
        let edge = b.column(boxes, i);
        b.unsqueeze(&edge, &[1, 2, 3])
    });
    let one = b.float(1.0);
    let length = b.op("Sub", [&high, &low]);
    let length = b.op("Max", [&length, &one]);
    let pixels = b.op("Ceil", [&length]);
    let most = match longest {
        Some(longest) => b.ints(&[longest as i64 / side + 3]),
        None => {
            // Where there are no boxes there is no largest.
            let all = b.reshape(&pixels, &[-1]);
            let least = b.exact_floats("one", &[1], vec![1.0]);
            let all = b.concat(&[&all, &least], 0);
            let most = b.reduce("ReduceMax", &all, &[0], true);
            let most = b.cast(&most, ElementType::Int64);
            let (side, more) = (b.ints(&[side]), b.ints(&[3]));
            let most = b.op("Div", [&most, &side]);
            b.op("Add", [&most, &more])
        }
    };
    Axis {
        low,
        length,
        pixels,
        most,
    }
}

/// The largest of the outermost pixels of each cell `[K, P, cells, cells]`, from heat maps with two more places on
/// each side: of all pixels where there are no more than two in a row.
fn best_of_cells(
    padded: &Value,
    axes: &[Axis; 2],
    points: i64,
    side: i64,
    b: &mut Builder,
) -> Value {
    let (cells, width) = (side as usize + 1, side as usize + 4);
    let all: Vec<f32> = (0..cells).map(|cell| cell as f32).collect();
    let all = b.exact_floats("cells", &[1, 1, cells, 1], all);
    // Where the four neighbours of each cell are.
    let mut neighbours = vec![0.0; cells * 4 * width];
    for (cell, i) in (0..cells).flat_map(|cell| (0..4).map(move |i| (cell, i))) {
        neighbours[(cell * 4 + i) * width + cell + i] = 1.0;
    }
    let neighbours = b.exact_floats("neighbours", &[1, 1, cells, 4, width], neighbours);
    let [x, y] = [0, 1].map(|axis| {
        let pixels = pixels(&axes[axis], &all, side, b);
        let (low, high) = (b.float(-1.0), b.float(2.0));
        let first = b.op("Where", [&pixels.inside, &pixels.offset, &high]);
        let first = b.reduce("ReduceMin", &first, &[3], true);
        let last = b.op("Where", [&pixels.inside, &pixels.offset, &low]);
        let last = b.reduce("ReduceMax", &last, &[3], true);
        let zero = b.float(0.0);
        let exists = b.op("GreaterOrEqual", [&last, &zero]);
        let ends = b.concat(&[&first, &last], 3);
        let weights = weights(&ends, b);
        let matrix = b.op("MatMul", [&weights, &neighbours]);
        let matrix = b.reshape(&matrix, &[-1, 1, 2 * cells as i64, width as i64]);
        (matrix, exists)
    });
    let values = b.op("MatMul", [&y.0, padded]);
    let across = b.transpose(&x.0, &[0, 1, 3, 2]);
    let values = b.op("MatMul", [&values, &across]);
    let cells = cells as i64;
    let values = b.reshape(&values, &[-1, points, cells, 2, cells, 2]);
    let best = b.reduce("ReduceMax", &values, &[3, 5], false);
    let columns = b.transpose(&x.1, &[0, 1, 3, 2]);
    let exists = b.op("And", [&y.1, &columns]);
    let nowhere = b.float(NOWHERE);
    b.op("Where", [&exists, &best, &nowhere])
}

/// The pixels of cells `[.., cells, 1]` along an axis: cell 0 lies before the first place of the heat map.
fn pixels(axis: &Axis, cell: &Value, side: i64, b: &mut Builder) -> Pixels {
    let (half, one) = (b.float(0.5), b.float(1.0));
    let side = b.float(side as f32);
    let scale = b.op("Div", [&side, &axis.pixels]);
    // One before the first pixel, as rounding may have it.
    let first = b.op("Sub", [cell, &half]);
    let first = b.op("Div", [&first, &scale]);
    let first = b.op("Sub", [&first, &half]);
    let first = b.op("Floor", [&first]);
    let offsets = b.range(&axis.most);
    let offsets = b.cast(&offsets, ElementType::Float);
    let index = b.op("Add", [&first, &offsets]);
    let middle = b.op("Add", [&index, &half]);
    let place = b.op("Mul", [&scale, &middle]);
    let place = b.op("Sub", [&place, &half]);
    let low = b.op("Floor", [&place]);
    let zero = b.float(0.0);
    let from = b.op("GreaterOrEqual", [&index, &zero]);
    let to = b.op("Less", [&index, &axis.pixels]);
    let before = b.op("Sub", [cell, &one]);
    let own = b.op("Equal", [&low, &before]);
    let inside = b.op("And", [&from, &to]);
    Pixels {
        inside: b.op("And", [&inside, &own]),
        offset: b.op("Sub", [&place, &low]),
        index,
    }
}

/// How much the four neighbours of pixels count, `[.., 4]`.
fn weights(offset: &Value, b: &mut Builder) -> Value {
    let one = b.float(1.0);
    let rest = b.op("Sub", [&one, offset]);
    let weights = [
        far(offset, b),
        near(offset, b),
        near(&rest, b),
        far(&rest, b),
    ];
    let weights = weights.map(|weight| b.unsqueeze(&weight, &[4]));
    let weights: Vec<&Value> = weights.iter().collect();
    b.concat(&weights, 4)
}

/// Weight of a place that is less than one away.
fn near(x: &Value, b: &mut Builder) -> Value {
    let [two, three, one] = [A + 2.0, A + 3.0, 1.0].map(|value| b.float(value));
    let y = b.op("Mul", [&two, x]);
    let y = b.op("Sub", [&y, &three]);
    let y = b.op("Mul", [&y, x]);
    let y = b.op("Mul", [&y, x]);
    b.op("Add", [&y, &one])
}

/// Weight of a place that is one more than this away.
fn far(x: &Value, b: &mut Builder) -> Value {
    let [one, a, five, eight, four] =
        [1.0, A, 5.0 * A, 8.0 * A, 4.0 * A].map(|value| b.float(value));
    let x = b.op("Add", [x, &one]);
    let y = b.op("Mul", [&a, &x]);
    let y = b.op("Sub", [&y, &five]);
    let y = b.op("Mul", [&y, &x]);
    let y = b.op("Add", [&y, &eight]);
    let y = b.op("Mul", [&y, &x]);
    b.op("Sub", [&y, &four])
}
