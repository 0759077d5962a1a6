//! Names and shapes of a checkpoint's tensors, by which networks are recognised.

use indexmap::IndexMap;

use crate::NormKind;

/// Shapes of tensors by name, in the order of the checkpoint.
#[derive(Debug, Clone, Default)]
pub struct Shapes {
    /// The module that the names are in, with a dot after it; empty for the whole network.
    prefix: String,
    shapes: IndexMap<String, Vec<usize>>,
    /// By the norm's name.
    norms: IndexMap<String, NormFacts>,
}

/// Properties of a norm that a checkpoint shows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NormFacts {
    /// Frozen or trainable.
    pub kind: Option<NormKind>,
    /// Added to the variance.
    pub eps: Option<f64>,
}

impl NormFacts {
    /// Kind and epsilon; where the checkpoint says nothing, the given ones of torchvision's builders.
    pub fn or(self, kind: NormKind, eps: f64) -> (NormKind, f64) {
        (self.kind.unwrap_or(kind), self.eps.unwrap_or(eps))
    }
}

impl FromIterator<(String, Vec<usize>)> for Shapes {
    fn from_iter<I: IntoIterator<Item = (String, Vec<usize>)>>(shapes: I) -> Self {
        Self {
            prefix: String::new(),
            shapes: shapes.into_iter().collect(),
            norms: IndexMap::new(),
        }
    }
}

impl Shapes {
    /// Adds facts about norms that their tensors do not show, by the norms' names.
    pub fn with_norms(mut self, norms: impl IntoIterator<Item = (String, NormFacts)>) -> Self {
        self.norms.extend(norms);
        self
    }

    /// The tensors of a module, by their names in it.
    pub fn within(&self, module: &str) -> Self {
        let inside = |name: &str| Some(name.strip_prefix(module)?.strip_prefix('.')?.to_string());
        let shapes = self.shapes.iter();
        let shapes = shapes.filter_map(|(name, shape)| Some((inside(name)?, shape.clone())));
        let norms = self.norms.iter();
        let norms = norms.filter_map(|(name, facts)| Some((inside(name)?, *facts)));
        Self {
            prefix: self.path(module) + ".",
            shapes: shapes.collect(),
            norms: norms.collect(),
        }
    }

    /// A tensor's name in the whole network.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Names of all tensors.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shapes.keys().map(String::as_str)
    }

    /// The shape of a tensor that has elements: none of its sizes is 0, nor more than a file can hold.
    pub fn get(&self, name: &str) -> Option<&[usize]> {
        let shape = self.shapes.get(name)?;
        (!shape.contains(&0)).then_some(shape)
    }

    /// The channels or features that a layer outputs, given the name of its weight and how many dimensions
    /// that has.
    ///
    /// # Errors
    /// When there is no weight with elements and that many dimensions.
    pub fn outputs(&self, weight: &str, dimensions: usize) -> Result<usize, String> {
        match self.get(weight) {
            Some(&[outputs, ref rest @ ..]) if rest.len() + 1 == dimensions => Ok(outputs),
            _ => {
                let found = self
                    .shapes
                    .get(weight)
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                Err(format!(
                    "{} of shape {found:?}, where {dimensions} sizes from 1 are expected",
                    self.path(weight)
                ))
            }
        }
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.shapes.contains_key(name)
    }

    /// Whether any tensor's name has this prefix.
    pub fn any(&self, prefix: &str) -> bool {
        self.names().any(|name| name.starts_with(prefix))
    }

    /// Number of consecutive indices from 0 for which a tensor of that name exists.
    pub fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.has(&name(i))).count()
    }

    /// Properties of a norm, by its tensors. Only a trainable norm has a batch counter, which some files leave out.
    pub fn norm(&self, module: &str) -> NormFacts {
        let known = self.norms.get(module).copied().unwrap_or_default();
        match self.has(&format!("{module}.num_batches_tracked")) {
            true => NormFacts {
                kind: Some(NormKind::BatchNorm2d),
                ..known
            },
            false => known,
        }
    }
}
