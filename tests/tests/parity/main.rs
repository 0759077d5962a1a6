//! Every operation and every stage of the detectors against torchvision's values.

mod freeze;
mod models;
mod ops;
mod training;
