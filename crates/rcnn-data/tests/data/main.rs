//! Reading, checking, converting and loading data sets, tiny ones in temporary folders.

mod checking;
mod coco;
mod common;
mod converting;
mod layouts;
mod loading;
mod names;
mod shapes;
mod tiling;
mod tools;
mod values;
mod voc;
mod yolo;
mod yolo_layouts;
