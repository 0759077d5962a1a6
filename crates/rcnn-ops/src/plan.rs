//! Convolution plans: weights that a backend has prepared, owned by the layer.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A place in a layer for its weights in the form that a backend multiplies with.
///
/// Only the backend knows what stands here; it compares the weight before it uses what it kept, so that
/// a layer whose weight is trained, loaded or cast is prepared anew. Clones share the place, as they share
/// the weights, and what it holds is freed with the last of them.
#[derive(Clone, Default)]
pub struct LayerPlan(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl LayerPlan {
    /// Calls a function with the backend's value, a default one at first.
    ///
    /// The place is locked meanwhile: the function must not wait for other threads.
    #[cfg_attr(
        not(feature = "flex"),
        allow(dead_code, reason = "Flex alone prepares weights")
    )]
    pub(crate) fn with<T: Any + Send + Default, R>(&self, visit: impl FnOnce(&mut T) -> R) -> R {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = place.take().and_then(|value| value.downcast::<T>().ok());
        let mut value = value.unwrap_or_default();
        let result = visit(&mut value);
        *place = Some(value);
        result
    }
}

impl fmt::Debug for LayerPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LayerPlan")
    }
}
