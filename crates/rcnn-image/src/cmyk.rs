//! Inks to light.

/// RGB of cyan, magenta, yellow and black from 0, no ink, to 255, by Pillow's formula.
pub(crate) fn to_rgb([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let light = 255 - k;
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * u32::from(light) + 128;
        light - ((product + (product >> 8)) >> 8) as u8
    })
}
