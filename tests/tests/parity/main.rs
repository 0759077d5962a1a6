//! Every operation and every stage of the detectors against torchvision's values.

mod models;
mod ops;
mod training;
