//! A box head in text, layer by layer: `fc:1024,fc:1024`, `fc6:512,fc7:256`, `conv:256x4,fc:1024`, `none`.

use std::fmt;
use std::str::FromStr;

use rcnn_backbone::{NormKind, StageHeadConfig};

use super::BoxHeadConfig;
use crate::MAX_LAYERS;

/// Text that is not a chain of layers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "box head `{text}`: {reason}; expected for example fc:512, fc:1024,fc:1024, conv:256x4,fc:1024, conv_bn:256x4,fc:1024, or none"
)]
pub struct BoxHeadTextError {
    /// The text that was given.
    pub text: String,
    /// Reason why it is invalid.
    pub reason: String,
}

/// Epsilon of the norms of `conv_bn`: torch's default.
const NORM_EPS: f64 = 1e-5;

impl FromStr for BoxHeadConfig {
    type Err = BoxHeadTextError;

    /// Reads layers from left to right: `fc:WIDTH` is a linear layer, `conv:CHANNELS` a 3x3
    /// convolution, `conv_bn:CHANNELS` one with batch norm, and `x4` after any of them repeats it.
    /// Two linear layers of one width are torchvision's `TwoMLPHead`, all else is its
    /// `FastRCNNConvFCHead`. `fc6:WIDTH,fc7:WIDTH` is a `TwoMLPHead` of two widths. With `none` the predictor takes the
    /// pooled features as they are; the name of a network, `inception_v2`, is its last stage.
    fn from_str(text: &str) -> Result<Self, BoxHeadTextError> {
        let error = |reason: String| BoxHeadTextError {
            text: text.to_string(),
            reason,
        };
        if text == StageHeadConfig::NAME {
            return Ok(Self::Stage(Default::default()));
        }
        let (mut conv_layers, mut fc_layers, mut norms) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(head) = two_widths(text) {
            return Ok(head);
        }
        let layers = text.split(',').map(str::trim).filter(|_| text != "none");
        for layer in layers {
            let (kind, size) = (layer.split_once(':'))
                .ok_or_else(|| error(format!("`{layer}` has no kind and size")))?;
            let (size, count) = size.split_once('x').unwrap_or((size, "1"));
            let number = |text: &str| match text.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(error(format!("`{text}` is not a number from 1"))),
            };
            let (size, count) = (number(size)?, number(count)?);
            if count > MAX_LAYERS {
                return Err(error(format!("`{layer}` is more than {MAX_LAYERS} layers")));
            }
            let sizes = std::iter::repeat_n(size, count);
            match kind {
                "fc" => fc_layers.extend(sizes),
                "conv" | "conv_bn" if !fc_layers.is_empty() => {
                    return Err(error(
                        "a convolution can't follow a linear layer; put convolutions first".into(),
                    ));
                }
                "conv" | "conv_bn" => {
                    norms.push(kind == "conv_bn");
                    conv_layers.extend(sizes);
                }
                _ => return Err(error(format!("there is no layer `{kind}`"))),
            }
        }
        if norms.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(error("conv and conv_bn can't be mixed".into()));
        }
        if let ([], &[first, second]) = (&conv_layers[..], &fc_layers[..])
            && first == second
        {
            return Ok(Self::TwoMlp {
                representation_size: first,
            });
        }
        Ok(Self::ConvFc {
            conv_layers,
            fc_layers,
            norm: norms
                .contains(&true)
                .then_some((NormKind::BatchNorm2d, NORM_EPS)),
        })
    }
}

/// Reads `fc6:512,fc7:256`.
fn two_widths(text: &str) -> Option<BoxHeadConfig> {
    let (fc6, fc7) = text.split_once(',')?;
    let width = |text: &str, layer: &str| {
        let width = text.trim().strip_prefix(layer)?.strip_prefix(':')?;
        width.parse().ok().filter(|width| *width > 0)
    };
    Some(BoxHeadConfig::Mlp {
        fc6: width(fc6, "fc6")?,
        fc7: width(fc7, "fc7")?,
    })
}

impl fmt::Display for BoxHeadConfig {
    /// The form that [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (convs, fcs, norm) = match self {
            Self::TwoMlp {
                representation_size: size,
            } => (&[][..], &[*size, *size][..], None),
            Self::Mlp { fc6, fc7 } => return write!(f, "fc6:{fc6},fc7:{fc7}"),
            Self::ConvFc {
                conv_layers,
                fc_layers,
                norm,
            } => (&conv_layers[..], &fc_layers[..], norm.as_ref()),
            Self::Stage(_) => return f.write_str(StageHeadConfig::NAME),
        };
        let conv = if norm.is_some() { "conv_bn" } else { "conv" };
        let runs = |kind: &str, sizes: &[usize]| -> Vec<String> {
            let runs = sizes.chunk_by(|a, b| a == b);
            runs.map(|run| match run.len() {
                1 => format!("{kind}:{}", run[0]),
                n => format!("{kind}:{}x{n}", run[0]),
            })
            .collect()
        };
        let layers = [runs(conv, convs), runs("fc", fcs)].concat();
        match layers.is_empty() {
            true => f.write_str("none"),
            false => f.write_str(&layers.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_read_and_written() {
        let two = |representation_size| BoxHeadConfig::TwoMlp {
            representation_size,
        };
        let chain = |convs: &[usize], fcs: &[usize]| BoxHeadConfig::ConvFc {
            conv_layers: convs.to_vec(),
            fc_layers: fcs.to_vec(),
            norm: None,
        };
        for (text, expected, short) in [
            ("fc:1024,fc:1024", two(1024), "fc:1024x2"),
            ("fc:512", chain(&[], &[512]), "fc:512"),
            (
                "fc6:512, fc7:256",
                BoxHeadConfig::Mlp { fc6: 512, fc7: 256 },
                "fc6:512,fc7:256",
            ),
            ("fc:512, fc:256", chain(&[], &[512, 256]), "fc:512,fc:256"),
            ("conv:8x2,fc:16", chain(&[8, 8], &[16]), "conv:8x2,fc:16"),
            ("conv:8", chain(&[8], &[]), "conv:8"),
            ("none", chain(&[], &[]), "none"),
            (
                "inception_v2",
                BoxHeadConfig::Stage(Default::default()),
                "inception_v2",
            ),
            (
                "conv_bn:256x4,fc:1024",
                BoxHeadConfig::v2(),
                "conv_bn:256x4,fc:1024",
            ),
        ] {
            assert_eq!(text.parse::<BoxHeadConfig>().as_ref(), Ok(&expected));
            assert_eq!(expected.to_string(), short);
            assert_eq!(short.parse::<BoxHeadConfig>(), Ok(expected));
        }
    }

    #[test]
    fn other_text_is_refused() {
        for (text, says) in [
            ("", "no kind"),
            ("fc", "no kind"),
            ("fc:0", "`0` is not a number from 1"),
            ("fc6:8", "no layer `fc6`"),
            ("fc:8,conv:8", "convolutions first"),
            ("pool:8", "no layer `pool`"),
            ("conv:8,conv_bn:8,fc:8", "mixed"),
            ("fc:8x1000000000000", "more than 64 layers"),
        ] {
            let error = text.parse::<BoxHeadConfig>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
