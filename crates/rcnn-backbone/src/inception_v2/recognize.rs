//! Inception v2 recognised by the names and shapes of its tensors.

use super::config::InceptionV2Depth;
use super::table::BlockSpec;
use super::{InceptionV2Config, InceptionV2HeadConfig};
use crate::Shapes;

/// Multipliers that are tried before the one that the shapes give.
const USUAL: [f64; 5] = [1.0, 0.75, 0.5, 0.35, 0.25];
/// Least channels that are tried.
const MIN_DEPTHS: [usize; 4] = [16, 8, 4, 1];
/// Parts of one to which a measured multiplier is rounded up.
const PRECISION: f64 = 1e6;

impl InceptionV2Config {
    /// The configuration of the backbone whose tensors these are; nothing where they are another's.
    pub(crate) fn recognize(backbone: &Shapes) -> Option<Result<Self, String>> {
        let mark = "conv2d_1a_7x7.depthwise.weight";
        backbone.has(mark).then(|| {
            let with = |depth| Self {
                depth,
                ..Default::default()
            };
            let expected = |depth| {
                let config = with(depth);
                let [first, second, third] = config.stem();
                let maps = 3 * config.colour_multiplier();
                let mut shapes = vec![
                    (mark.to_string(), vec![maps, 1, 7, 7]),
                    (
                        "conv2d_1a_7x7.pointwise.0.weight".into(),
                        vec![first, maps, 1, 1],
                    ),
                    ("conv2d_2b_1x1.0.weight".into(), vec![second, first, 1, 1]),
                    ("conv2d_2c_3x3.0.weight".into(), vec![third, second, 3, 3]),
                ];
                shapes.extend(block_shapes(&config.blocks(), depth));
                shapes
            };
            Ok(with(find(backbone, expected)?))
        })
    }
}

impl InceptionV2HeadConfig {
    /// The configuration of the box head whose tensors these are.
    ///
    /// # Errors
    /// Says what was seen that does not fit.
    pub fn recognize(head: &Shapes) -> Result<Self, String> {
        let first = "mixed_5a.branch_0.conv2d_0a_1x1.0.weight";
        let input = head
            .get(first)
            .and_then(|shape| shape.get(1))
            .copied()
            .unwrap_or(0);
        let with = |depth| Self {
            depth,
            ..Default::default()
        };
        let expected = |depth| block_shapes(&with(depth).blocks(input), depth);
        Ok(with(find(head, expected)?))
    }
}

/// The depth by which all layers have their shapes, the first of which are their output channels.
fn find(
    shapes: &Shapes,
    expected: impl Fn(InceptionV2Depth) -> Vec<(String, Vec<usize>)>,
) -> Result<InceptionV2Depth, String> {
    let paper = expected(InceptionV2Depth {
        min_depth: 1,
        ..Default::default()
    });
    let measured = |min_depth: usize| {
        let shares = paper.iter().filter_map(|(name, shape)| {
            let found = *shapes.get(name)?.first()?;
            (found > min_depth).then(|| found as f64 / shape[0] as f64)
        });
        (shares.fold(0.0, f64::max) * PRECISION).ceil() / PRECISION
    };
    let depths = MIN_DEPTHS.into_iter().flat_map(|min_depth| {
        let multipliers = USUAL.into_iter().chain([measured(min_depth)]);
        multipliers.map(move |depth_multiplier| InceptionV2Depth {
            depth_multiplier,
            min_depth,
        })
    });
    let wrong = |depth| {
        let mut expected = expected(depth).into_iter();
        expected.find(|(name, shape)| shapes.get(name) != Some(shape))
    };
    let mut depths = depths.into_iter();
    depths.find(|depth| wrong(*depth).is_none()).ok_or_else(|| {
        let (name, shape) = wrong(InceptionV2Depth::default()).unwrap_or_default();
        let found = shapes.get(&name).unwrap_or_default();
        format!(
            "an Inception v2 whose {} has the shape {found:?}, where {shape:?} is expected, and whose layers have no \
             common share of the paper's channels",
            shapes.path(&name)
        )
    })
}

/// Names and shapes of the weights of blocks.
fn block_shapes(
    blocks: &[(BlockSpec, usize)],
    depth: InceptionV2Depth,
) -> Vec<(String, Vec<usize>)> {
    let mut shapes = vec![];
    for (block, input) in blocks {
        for (number, branch) in block.branches().into_iter().enumerate() {
            let mut channels = *input;
            for (name, out, kernel, _) in branch.convs() {
                let out = depth.channels(out);
                let name = format!("{}.branch_{number}.{name}.0.weight", block.name);
                shapes.push((name, vec![out, channels, kernel, kernel]));
                channels = out;
            }
        }
    }
    shapes
}
