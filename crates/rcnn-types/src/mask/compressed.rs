//! Compressed run lengths: COCO's strings of six bits a character.

use super::{Mask, MaskError};
use crate::Size;

/// What is added to six bits for a printable character.
const ZERO: u8 = b'0';
/// The bit that says that a run goes on with the next character.
const MORE: u8 = 0x20;
/// The highest bit of the value of a character, which is the sign in the last one.
const SIGN: u8 = 0x10;
/// More than any run's five-bit groups.
const LONGEST: usize = 12;

impl Mask {
    /// A mask of COCO's compressed RLE, the string under `counts`.
    ///
    /// # Errors
    /// When a character is none of RLE's, or the runs do not add up to the image.
    pub fn from_compressed(text: &str, size: Size) -> Result<Self, MaskError> {
        let mut counts: Vec<u32> = Vec::new();
        let mut groups = text.bytes();
        while groups.len() > 0 {
            let run = counts.len();
            let invalid = MaskError::Compressed { run };
            let Some(mut count) = value(&mut groups) else {
                return Err(invalid);
            };
            // All but the first runs are differences from those two before.
            if run > 2 {
                count += i64::from(counts[run - 2]);
            }
            counts.push(u32::try_from(count).map_err(|_| invalid)?);
        }
        Self::from_counts(counts, size)
    }

    /// The mask in COCO's compressed RLE.
    pub fn to_compressed(&self) -> String {
        let mut text = String::new();
        for (run, &count) in self.counts.iter().enumerate() {
            let mut rest = i64::from(count);
            if run > 2 {
                rest -= i64::from(self.counts[run - 2]);
            }
            loop {
                let group = (rest & 0x1f) as u8;
                rest >>= 5;
                let sign = if group & SIGN == 0 { 0 } else { -1 };
                let more = if rest == sign { 0 } else { MORE };
                text.push(char::from((group | more) + ZERO));
                if more == 0 {
                    break;
                }
            }
        }
        text
    }
}

/// The next value of a string, five bits a character, the lowest first.
fn value(groups: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut value = 0;
    for group in 0..LONGEST {
        let bits = groups.next()?.checked_sub(ZERO).filter(|bits| *bits < 64)?;
        let place = 5 * group;
        value |= i64::from(bits & 0x1f) << place;
        if bits & MORE == 0 {
            let negative = bits & SIGN != 0;
            return Some(if negative {
                value | -1 << (place + 5)
            } else {
                value
            });
        }
    }
    None
}
