//! Members of labels besides boxes and classes: masks, keypoints, attributes.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// The members of an entry of a label file that this crate has no field for, such as COCO's
/// `segmentation` or VOC's `difficult`: names under which COCO has them, with values in JSON exactly
/// as they stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras(Vec<(String, String)>);

impl Extras {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// All members of a JSON object but some.
    pub(crate) fn without(object: &RawValue, known: &[&str]) -> serde_json::Result<Self> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(object.get())?;
        let others = members.into_iter();
        let others = others.filter(|(name, value)| {
            // Many tools write an empty mask where there is none.
            let blank = |c: char| c.is_whitespace() || matches!(c, '[' | ']');
            let is_empty = |json: &str| json == "null" || json.trim_start_matches(blank).is_empty();
            let no_mask = name == "segmentation" && is_empty(value.get());
            !no_mask && !known.contains(&name.as_str())
        });
        let others = others.map(|(name, value)| (name, value.get().to_string()));
        Ok(Self(others.collect()))
    }

    pub(crate) fn push(&mut self, name: &str, json: String) {
        self.0.push((name.into(), json));
    }

    /// Changes the value of a member that is there.
    pub(crate) fn set(&mut self, name: &str, json: String) {
        let member = self.0.iter_mut().find(|(known, _)| known == name);
        if let Some((_, value)) = member {
            *value = json;
        }
    }

    /// The members that are true of an object wherever it is cut out: all but mask and keypoints.
    pub(crate) fn without_shapes(mut self) -> Self {
        let shapes = ["segmentation", "keypoints", "num_keypoints"];
        self.0.retain(|(name, _)| !shapes.contains(&name.as_str()));
        self
    }

    /// The value of a member, in JSON.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut members = self.iter();
        members.find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Whether there are no such members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names of the members, and their values in JSON.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let members = self.0.iter();
        members.map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl Serialize for Extras {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.iter() {
            let value: &RawValue =
                serde_json::from_str(value).map_err(serde::ser::Error::custom)?;
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
