//! Evaluates detections against annotated images, with COCO's metrics and pictures for people.
//!
//! [`evaluate`] computes what pycocotools computes for boxes, and for masks and keypoints where there are
//! some (through the `hotcoco` crate): the numbers of its summaries and those of each class. Next to them an [`Evaluation`] has a
//! precision-recall curve and the best threshold for each class, a confusion matrix, and the errors
//! in each image; [`draw_curves`], [`draw_confusion`] and [`contact_sheet`] draw these.
//!
//! ```
//! # mod rcnn_burn { pub use rcnn_eval as eval; pub use rcnn_types as types; }
//! use rcnn_burn::eval::evaluate;
//! use rcnn_burn::types::{ImageInstances, Instances};
//!
//! let names = ["background", "cat"].map(String::from);
//! let image = |instances| ImageInstances { image_id: 1, instances, ..Default::default() };
//! let cat = [10.0, 10.0, 60.0, 60.0];
//! let truth = image(Instances::new(vec![cat], vec![1]));
//! let found = image(Instances::from_iter([(cat, 1, 0.9)]));
//! let evaluation = evaluate(&[truth], &[found], &names)?;
//! assert!(evaluation.summary.ap.unwrap() > 0.999);
//! assert_eq!(evaluation.summary.ap_large, None);
//! # Ok::<(), rcnn_eval::EvalError>(())
//! ```
//!
//! # Equality with pycocotools
//!
//! `tests/reference.rs` compares all numbers with those of pycocotools 2.0.11 on data with awkward
//! cases; no workaround for hotcoco was needed. For equal numbers pycocotools must read equal ones,
//! so [`results::write`] writes boxes and scores exactly rather than rounded. A few things differ on
//! purpose:
//!
//! - A number that does not exist, as that of a class without objects, is `None` (`null` in JSON)
//!   where pycocotools has -1.
//! - Areas of detections are those of their boxes, as pycocotools has them for results with boxes, unless
//!   [`Instances::areas`](rcnn_types::Instances::areas) says otherwise.
//! - An object without a mask, in data where others have some, is ignored like a crowd.
//! - Without any detection, which pycocotools refuses to load, all numbers are 0.
//! - NaN is an error instead of a number that depends on the order of sorting.

mod confusion;
mod curves;
mod engine;
mod error;
mod evaluation;
mod input;
mod plots;
pub mod results;
mod table;
mod worst;

pub use confusion::{Confusion, draw_confusion};
pub use curves::{BestF1, Curve, CurvePoint, draw_curves};
pub use engine::ClassNumbers;
pub use error::EvalError;
pub use evaluation::{
    ClassEvaluation, DEFAULT_SIGMA, EvalOptions, Evaluation, KeypointSummary, ShapeEvaluation,
    Summary, evaluate, evaluate_with,
};
pub use input::validate;
pub use plots::{Plot, draw_plots};
pub use worst::{ImageErrors, Mark, Tile, contact_sheet};

/// The best detections of each class that COCO counts in an image.
pub const MAX_DETS: usize = 100;

/// The IoU from which on a detection is a true positive in curves, best thresholds, confusion and errors.
pub const MATCH_IOU: f64 = 0.5;
