//! Problems of a data set, gathered while reading it and reported once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// How many problems of a kind are spelled out unless all are asked for.
const SHOWN: usize = 10;

/// Kind of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProblemKind {
    /// A label file that cannot be read; its image is left out.
    BrokenLabels,
    /// An image that is listed but not there.
    MissingImage,
    /// An image file whose size cannot be read.
    BrokenImage,
    /// An entry of a JSON file that cannot be read.
    BadEntry,
    /// A box whose coordinates are missing or no numbers.
    BadBox,
    /// A box whose right or bottom edge is not beyond its left or top one.
    NoArea,
    /// A box that lies outside the image or reaches more than a pixel beyond it.
    OutsideImage,
    /// A box of a class that the data set or the caller doesn't name.
    UnknownLabel,
    /// Note: a mask that cannot be read; the object has none.
    BadMask,
    /// Note: keypoints that cannot be read; the object has none.
    BadKeypoints,
    /// Note: a polygon with a corner more than a pixel beyond the image.
    MaskOutside,
    /// Note: a mask that covers no pixel.
    EmptyMask,
    /// Note: a mask that does not reach from edge to edge of its box, or reaches beyond.
    MaskMismatch,
    /// Note: a keypoint beyond the image, or far from its object's box.
    KeypointOutside,
    /// Note: an object with another number of keypoints than the first that has some; a model has one number.
    KeypointCount,
    /// Note: an image of another size than the label file states; the image's counts.
    SizeMismatch,
    /// Note: an image whose labels were made without heeding its orientation, and are turned with it.
    TurnedLabels,
    /// Note: an image that its orientation turns or flips, whose labels do not show whether they heed that; they
    /// are taken to.
    UnclearOrientation,
    /// Note: a box that was cut to the image.
    Clipped,
    /// Note: a box that the image has twice, with the same label.
    DuplicateBox,
    /// Note: an image listed twice; the first entry counts.
    DuplicateImage,
    /// Note: an image without a label file, taken for background.
    UnlabelledImage,
    /// Note: a label file that no image belongs to.
    OrphanLabels,
    /// Note: a split that lists nothing.
    EmptySplit,
    /// Note: a category without objects that only groups others, or the background; it is not a class.
    CategoryGroup,
    /// Note: a category that has the name of another, and a name of its own here.
    DuplicateCategory,
    /// Note: names of classes that differ in capitals, accents or spaces alone.
    SimilarClasses,
    /// Note: data that do not name their classes, so that their numbers are taken for those of the caller's names.
    UnnamedClasses,
}

impl ProblemKind {
    /// Whether data with such a problem are rejected unless invalid data are skipped.
    pub fn is_invalid(self) -> bool {
        self <= Self::UnknownLabel
    }

    /// A heading for several problems of this kind.
    pub fn heading(self) -> &'static str {
        match self {
            Self::BrokenLabels => "label files that can't be read",
            Self::MissingImage => "images that are listed but missing",
            Self::BrokenImage => "images that can't be read",
            Self::BadEntry => "entries that can't be read",
            Self::BadBox => "boxes that are not four numbers",
            Self::NoArea => "boxes without area",
            Self::OutsideImage => "boxes outside the image",
            Self::UnknownLabel => "boxes of unknown classes",
            Self::BadMask => "masks that can't be read",
            Self::BadKeypoints => "keypoints that can't be read",
            Self::MaskOutside => "masks that reach beyond the image",
            Self::EmptyMask => "masks without a pixel",
            Self::MaskMismatch => "masks that do not fit their box",
            Self::KeypointOutside => "keypoints outside their box or the image",
            Self::KeypointCount => "objects with another number of keypoints",
            Self::SizeMismatch => "images of another size than their labels state",
            Self::TurnedLabels => {
                "images labelled as they are stored, their labels turned with them"
            }
            Self::UnclearOrientation => {
                "turned or flipped images whose labels do not show which way up they were made"
            }
            Self::Clipped => "boxes cut to the image",
            Self::DuplicateBox => "duplicate boxes",
            Self::DuplicateImage => "images listed twice",
            Self::UnlabelledImage => "images without labels, taken for background",
            Self::OrphanLabels => "labels without an image, left out",
            Self::EmptySplit => "empty splits",
            Self::CategoryGroup => "categories that are not classes, left out",
            Self::DuplicateCategory => "categories with the name of another",
            Self::SimilarClasses => "classes whose names are nearly the same",
            Self::UnnamedClasses => "classes without names",
        }
    }
}

/// A problem of one file, image or object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Kind of problem.
    pub kind: ProblemKind,
    /// The file it is in.
    #[serde(serialize_with = "as_text")]
    pub file: PathBuf,
    /// The box: its place in the file from 1, or COCO's annotation id.
    pub object: Option<u64>,
    /// Description of the problem.
    pub message: String,
}

/// A path in JSON, which has no place for other bytes than UTF-8.
fn as_text<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&path.display())
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(object) = self.object {
            write!(f, ", box {object}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything that is wrong with a data set.
///
/// Displayed grouped by kind with counts; `{:#}` spells out every single one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn push(
        &mut self,
        kind: ProblemKind,
        file: &Path,
        object: Option<u64>,
        message: impl Into<String>,
    ) {
        self.0.push(Problem {
            kind,
            file: file.into(),
            object,
            message: message.into(),
        });
    }

    pub(crate) fn extend(&mut self, more: Problems) {
        self.0.extend(more.0);
    }

    /// The problems in the order of the data.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Number of problems, notes included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no problems, not even notes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of problems that make data invalid, which are dropped if those are skipped.
    pub fn invalid(&self) -> usize {
        self.iter().filter(|p| p.kind.is_invalid()).count()
    }

    /// Problems that do not make data invalid but may be unintended, in words: `duplicate boxes: 2, empty
    /// splits: 1`.
    pub fn notes(&self) -> Option<String> {
        let notes = self
            .counts()
            .into_iter()
            .filter(|(kind, _)| !kind.is_invalid());
        let of_kind = |kind| self.iter().find(|p| p.kind == kind);
        let notes: Vec<String> = notes
            .map(|(kind, n)| match of_kind(kind) {
                // There is but one, which a check without a model does not have.
                Some(note) if kind == ProblemKind::UnnamedClasses => note.message.clone(),
                _ => format!("{}: {n}", kind.heading()),
            })
            .collect();
        (!notes.is_empty()).then(|| notes.join(", "))
    }

    /// Number of problems of each kind.
    pub fn counts(&self) -> BTreeMap<ProblemKind, usize> {
        let mut counts = BTreeMap::new();
        self.iter()
            .for_each(|p| *counts.entry(p.kind).or_default() += 1);
        counts
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let shown = if f.alternate() { usize::MAX } else { SHOWN };
        for (i, (kind, count)) in self.counts().into_iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{} ({count}):", kind.heading())?;
            for problem in self.iter().filter(|p| p.kind == kind).take(shown) {
                write!(f, "\n  {problem}")?;
            }
            if count > shown {
                write!(f, "\n  ... and {} more", count - shown)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_and_counted() {
        let mut problems = Problems::default();
        let file = Path::new("a.xml");
        for object in 1..=12 {
            problems.push(ProblemKind::NoArea, file, Some(object), "5 x 0");
        }
        problems.push(ProblemKind::DuplicateBox, file, Some(3), "as box 2");
        assert_eq!(problems.invalid(), 12);
        assert_eq!(problems.notes().unwrap(), "duplicate boxes: 1");
        let text = problems.to_string();
        assert!(
            text.starts_with("boxes without area (12):\n  a.xml, box 1: 5 x 0\n"),
            "{text}"
        );
        assert!(
            text.contains("\n  ... and 2 more\nduplicate boxes (1):\n"),
            "{text}"
        );
        assert_eq!(format!("{problems:#}").lines().count(), 12 + 1 + 2);
    }
}
