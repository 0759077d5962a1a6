//! Configurations in JSON and similar formats. An unknown name is an error wherever a configuration is
//! read: from a file, from a model's metadata, or over another one.

use rcnn_backbone::BackboneConfig;
use rcnn_roi::RoiHeadsConfig;
use rcnn_rpn::RpnConfig;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::{Map, Value};

use crate::{ConfigError, FasterRcnnConfig, GeneralizedRcnnTransform};

/// The fields of a [`FasterRcnnConfig`] as serde reads them: as the parts are flattened, it ignores
/// unknown names.
#[derive(serde::Deserialize)]
#[serde(default = "FasterRcnnConfig::default", remote = "FasterRcnnConfig")]
struct Fields {
    num_classes: usize,
    class_names: Vec<String>,
    backbone: BackboneConfig,
    #[serde(flatten)]
    transform: GeneralizedRcnnTransform,
    #[serde(flatten)]
    rpn: RpnConfig,
    #[serde(flatten)]
    roi_heads: RoiHeadsConfig,
}

impl<'de> Deserialize<'de> for FasterRcnnConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        read(&Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Reads the fields, then compares the given names with those of the result.
fn read(json: &Value) -> Result<FasterRcnnConfig, ConfigError> {
    let config = Fields::deserialize(json).map_err(|error| wrong_type(json, &error))?;
    let known = serde_json::to_value(&config).map_err(|error| wrong_type(json, &error))?;
    require_known(json, &known, "")?;
    Ok(config)
}

/// Serde's error with the name of the parameter, which flattened structs lose: that of the first one that cannot be
/// read by itself.
fn wrong_type(json: &Value, error: &serde_json::Error) -> ConfigError {
    let fields = json.as_object().into_iter().flatten();
    let mut errors = fields.filter_map(|(name, value)| {
        let alone = Value::from_iter([(name.as_str(), value.clone())]);
        let error = Fields::deserialize(&alone).err()?;
        Some(format!("{name}: {error}"))
    });
    ConfigError::Type(errors.next().unwrap_or_else(|| error.to_string()))
}

/// Checks that all names in `given` are in `known`, at every depth. `path` is the prefix of both.
fn require_known(given: &Value, known: &Value, path: &str) -> Result<(), ConfigError> {
    let (Value::Object(given), Value::Object(known)) = (given, known) else {
        return Ok(());
    };
    for (name, value) in given {
        let at = |name: &str| format!("{path}{name}");
        let Some(field) = known.get(name) else {
            let alike = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
            let nearest = known.keys().max_by(|a, b| alike(a).total_cmp(&alike(b)));
            return Err(ConfigError::UnknownParameter {
                name: at(name),
                nearest: nearest.map(|name| at(name)),
            });
        };
        require_known(value, field, &at(&format!("{name}.")))?;
    }
    Ok(())
}

impl FasterRcnnConfig {
    /// Replaces some parameters, under their names in JSON. Objects are merged, so that `{"backbone":
    /// {"arch": "resnet18"}}` leaves the rest of the backbone.
    ///
    /// # Errors
    /// Names an unknown parameter and the known one that is most like it, or a value of the wrong
    /// type. Whether all go together, [`validate`](Self::validate) says.
    pub fn overridden(&self, overrides: &Map<String, Value>) -> Result<Self, ConfigError> {
        let json = serde_json::to_value(self);
        let mut json = json.map_err(|error| ConfigError::Type(error.to_string()))?;
        merge(&mut json, overrides);
        read(&json)
    }
}

fn merge(base: &mut Value, overrides: &Map<String, Value>) {
    // An object of another kind has other fields.
    let kind = overrides.get("kind");
    let fields = match base {
        Value::Object(fields) if kind.is_none() || kind == fields.get("kind") => fields,
        _ => {
            *base = Value::Object(overrides.clone());
            return;
        }
    };
    for (name, value) in overrides {
        match (fields.get_mut(name), value) {
            (Some(field), Value::Object(inner)) => merge(field, inner),
            _ => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}
