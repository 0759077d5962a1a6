//! The named losses of a forward pass.

use burn::tensor::{Tensor, backend::Backend};

/// Losses by name, each `[1]`, in the order in which they were computed: the dictionary that
/// torchvision's models return in training, under torchvision's names (`loss_classifier`).
///
/// ```
/// # mod rcnn_burn { pub use burn::tensor::Tensor; pub use rcnn_ops as ops; pub use rcnn_ops::backend_types::*; pub use rcnn_ops::Losses; }
/// use rcnn_burn::{Flex, Losses, Tensor};
///
/// let loss = |value: f32| Tensor::<Flex, 1>::from_floats([value], &Default::default());
/// let mut losses = Losses::new(["loss_classifier", "loss_box_reg"], [loss(0.5), loss(0.25)]);
/// losses.extend(Losses::new(["loss_mask"], [loss(1.0)]));
/// assert_eq!(losses.values()[2], ("loss_mask", 1.0));
/// assert_eq!(losses.total().into_scalar(), 1.75);
/// ```
#[derive(Debug, Clone)]
pub struct Losses<B: Backend>(Vec<(&'static str, Tensor<B, 1>)>);

impl<B: Backend> Losses<B> {
    /// Creates losses from names and tensors `[1]`.
    pub fn new<const N: usize>(names: [&'static str; N], losses: [Tensor<B, 1>; N]) -> Self {
        Self(names.into_iter().zip(losses).collect())
    }

    /// Names and losses.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&'static str, &Tensor<B, 1>)> {
        self.0.iter().map(|(name, loss)| (*name, loss))
    }

    /// The loss of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor<B, 1>> {
        self.iter().find(|(n, _)| *n == name).map(|(_, loss)| loss)
    }

    /// Sum of the losses, which training minimises.
    ///
    /// # Panics
    /// When there are none.
    pub fn total(&self) -> Tensor<B, 1> {
        let losses = self.0.iter().map(|(_, loss)| loss.clone());
        losses.reduce(|sum, loss| sum + loss).expect("a loss")
    }

    /// Names and values, read back from the device at once.
    pub fn values(&self) -> Vec<(&'static str, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let losses = self.0.iter().map(|(_, loss)| loss.clone().detach());
        let values = Tensor::cat(losses.collect(), 0).into_data();
        let names = self.0.iter().map(|(name, _)| *name);
        names.zip(values.iter::<f64>()).collect()
    }
}

impl<B: Backend> Extend<(&'static str, Tensor<B, 1>)> for Losses<B> {
    fn extend<I: IntoIterator<Item = (&'static str, Tensor<B, 1>)>>(&mut self, losses: I) {
        self.0.extend(losses);
    }
}

impl<B: Backend> IntoIterator for Losses<B> {
    type Item = (&'static str, Tensor<B, 1>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
