//! Masks in COCO's JSON: `{"size": [height, width], "counts": ...}`.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Mask;
use crate::Size;

#[derive(Serialize, Deserialize)]
struct Rle<C> {
    size: Size,
    counts: C,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counts {
    Plain(Vec<u32>),
    Compressed(String),
}

/// As COCO's compressed RLE.
impl Serialize for Mask {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (size, counts) = (self.size, self.to_compressed());
        Rle { size, counts }.serialize(serializer)
    }
}

/// From COCO's RLE, compressed or not.
impl<'de> Deserialize<'de> for Mask {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Rle { size, counts } = Rle::deserialize(deserializer)?;
        let mask = match counts {
            Counts::Plain(counts) => Self::from_counts(counts, size),
            Counts::Compressed(text) => Self::from_compressed(&text, size),
        };
        mask.map_err(D::Error::custom)
    }
}
