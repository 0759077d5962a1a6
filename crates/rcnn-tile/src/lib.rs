//! Detection in several views of a picture: [tiles](TileGrid) of one that is larger than the network's input, the whole
//! picture, mirrored and resized copies ([`TestTimeAugmentation`]); and [one merge](Merge) of what they found.
//!
//! ```
//! # mod rcnn_burn { pub use burn; pub use burn::tensor::Tensor; pub use rcnn_detector::*; pub use rcnn_ops::backend_types::*; pub use rcnn_tile as tile; pub use rcnn_types::Size; }
//! use rcnn_burn::burn::tensor::Distribution;
//! use rcnn_burn::tile::{TileGrid, Views};
//! use rcnn_burn::{DetectError, FasterRcnnConfig, Flex, Size, Tensor};
//!
//! let device = Default::default();
//! let mut config = FasterRcnnConfig::named("resnet18_fpn", 4)?;
//! config.transform.min_size = vec![64];
//! # let config = config.with_surgery(&["cut-after layer1".parse()?, "box-head fc:16".parse()?])?;
//! let model = config.init::<Flex>(&device)?;
//! let image = Tensor::<Flex, 3>::random([3, 96, 160], Distribution::Uniform(0.0, 1.0), &device);
//!
//! let views = Views { tiles: Some(TileGrid { side: 96, overlap: 0.2 }), ..Views::default() };
//! let tile = |[left, top, right, bottom]: [u32; 4]| {
//!     let [x, y] = [left..right, top..bottom].map(|side| side.start as usize..side.end as usize);
//!     Ok::<_, DetectError>(image.clone().slice([0..3, y, x]))
//! };
//! let found = views.detect(&model, Size::new(96, 160), tile, |done, all| println!("{done}/{all}"))?;
//! # assert!(found.scores.is_some_and(|scores| scores.is_sorted_by(|a, b| a >= b)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod augmentation;
mod fusion;
mod greedy;
mod merge;
mod neighbours;
mod views;

pub use augmentation::TestTimeAugmentation;
pub use merge::{Merge, MergeMethod, OverlapMetric};
pub use rcnn_types::{TileGrid, Window};
pub use views::Views;
