//! A box to pool, as kernels read it from a row of `rois`.

use burn_cubecl::cubecl::{self, prelude::*};

#[derive(CubeType, Clone, Copy)]
pub(super) struct Roi {
    pub image: usize,
    pub x1: f32,
    pub y1: f32,
    pub x2: f32,
    pub y2: f32,
}

/// Row `index` of `rois` `[K, 5]`.
#[cube]
pub(super) fn read_roi<R: Float>(rois: &Tensor<R>, index: usize) -> Roi {
    let at = index * 5;
    Roi {
        image: f32::cast_from(rois[at]) as usize,
        x1: f32::cast_from(rois[at + 1]),
        y1: f32::cast_from(rois[at + 2]),
        x2: f32::cast_from(rois[at + 3]),
        y2: f32::cast_from(rois[at + 4]),
    }
}
