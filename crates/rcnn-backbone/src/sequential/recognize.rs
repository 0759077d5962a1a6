//! A sequential body recognised by the names and shapes of its tensors.

use super::network::Network;
use super::{SequentialArch, SequentialConfig};
use crate::{FpnConfig, NormFacts, NormKind, Shapes};

/// The name of the classifier whose tensors these are; nothing where they are of another family.
pub(crate) fn recognize_classifier<A: SequentialArch>(
    shapes: &Shapes,
) -> Option<Result<&'static str, String>> {
    let features = shapes.within("features");
    features
        .has(A::MARK)
        .then(|| Ok(recognize_arch::<A>(&features)?.0.name()))
}

impl<A: SequentialArch> SequentialConfig<A> {
    /// The configuration of the backbone whose tensors these are; nothing where they are of another family.
    pub(crate) fn recognize(backbone: &Shapes) -> Option<Result<Self, String>> {
        let body = backbone.within("body");
        if body.has(A::MARK) && backbone.any("fpn.") {
            return Some(Self::recognize_fpn(backbone, &body));
        }
        backbone
            .has(A::MARK)
            .then(|| Self::recognize_features(backbone))
    }

    fn recognize_fpn(backbone: &Shapes, body: &Shapes) -> Result<Self, String> {
        let (arch, _) = recognize_arch::<A>(body)?;
        let mut whole = Self::with_fpn(arch);
        (whole.norm, whole.norm_eps) = norm(body, arch).or(whole.norm, whole.norm_eps);
        let mut stages = whole.network().stages;
        for stage in &mut stages {
            // The body ends with the last stage that the pyramid takes.
            let mut modules = stage.modules.iter();
            stage.is_returnable = modules.any(|module| body.any(&format!("{module}.")));
        }
        let fpn = FpnConfig::recognize(&backbone.within("fpn"), arch.name(), &stages)?;
        Ok(Self {
            returned_layers: fpn.returned_stages,
            fpn: Some(super::PyramidConfig {
                out_channels: fpn.out_channels,
                inner_channels: fpn.inner_channels,
                norm: fpn.norm,
                ..Default::default()
            }),
            ..whole
        })
    }

    fn recognize_features(body: &Shapes) -> Result<Self, String> {
        let (arch, places) = recognize_arch::<A>(body)?;
        let mut config = Self::features(arch);
        let found = norm(body, arch);
        if found.kind == Some(NormKind::FrozenBatchNorm2d) {
            // The classifier was then built with these, which have an epsilon of their own.
            (config.norm_eps, config.norm_momentum) = (1e-5, 0.1);
        }
        (config.norm, config.norm_eps) = found.or(config.norm, config.norm_eps);
        // Layers without weights, as the pooling at the end of a VGG, leave no trace: the stage is then taken whole.
        let cuts = [false, true].into_iter().flat_map(|trimmed| {
            let stages = 0..arch.stages().len();
            stages.map(move |stage| (stage, trimmed))
        });
        for (stage, trimmed) in cuts {
            config.returned_layers = vec![stage];
            config.trim_last_stage = trimmed;
            if weighted(&config.network()) == places {
                return Ok(config);
            }
        }
        Err(format!(
            "a {} of {places} layers ({}), which is not a whole number of its stages",
            arch.name(),
            body.path("*")
        ))
    }
}

/// Properties of the first norm; the default without norms.
fn norm<A: SequentialArch>(body: &Shapes, arch: A) -> NormFacts {
    let network = SequentialConfig::features(arch).network();
    let layers = network.layers.iter().enumerate();
    let mut norms =
        layers.filter_map(|(place, layer)| Some(format!("{place}{}", layer.spec.norm()?)));
    let first = norms.next().map(|name| body.norm(&name));
    first.unwrap_or_default()
}

/// Number of layers with weights.
fn weighted(network: &Network) -> usize {
    let layers = network.layers.iter();
    layers
        .filter(|layer| !layer.spec.weights(layer.input).is_empty())
        .count()
}

/// The member, and how many of its layers with weights there are.
fn recognize_arch<A: SequentialArch>(body: &Shapes) -> Result<(A, usize), String> {
    let fits = |arch: A| {
        let network = SequentialConfig::features(arch).network();
        let layers = network.layers.iter().enumerate();
        let weights = layers.map(|(place, layer)| {
            let weights = layer.spec.weights(layer.input).into_iter();
            let weights = weights.map(|(name, shape)| (format!("{place}.{name}"), shape));
            weights.collect::<Vec<_>>()
        });
        let mut there = weights
            .filter(|weights| !weights.is_empty())
            .map(|weights| {
                let mut weights = weights.iter();
                weights.all(|(name, shape)| body.get(name) == Some(shape))
            });
        let count = there.by_ref().take_while(|there| *there).count();
        // Layers after the last one that there is are not missing, but cut off.
        (count > 0 && !there.any(|there| there)).then_some((arch, count))
    };
    let all = || A::ALL.iter().copied();
    all()
        .filter_map(fits)
        .max_by_key(|(_, count)| *count)
        .ok_or_else(|| {
            let known: Vec<&str> = all().map(A::name).collect();
            format!(
                "{}, but the layers are of none of {}; a custom backbone is loaded by the program that \
                 builds it, with Weights::open_with and load_into",
                body.path(A::MARK),
                known.join(", ")
            )
        })
}
