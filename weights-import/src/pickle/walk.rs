//! The tensors of a pickle by name, as torch's `state_dict` would name them: nested dicts, and the modules of a network
//! that was pickled whole, which are described here and never made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rcnn_backbone::{NormFacts, NormKind};

use crate::checkpoint::Contents;
use crate::error::CheckpointError;
use crate::source::Source;
use crate::storage::{Region, StoredTensor};

use super::torch_objects::{Rebuilt, Tensors};
use super::{Id, Object, Pickle, Value};

/// How deep dicts and modules may lie in each other; a training checkpoint has ten levels.
const MAX_DEPTH: usize = 64;
/// How long a dotted name may be and how many tensors and notes there may be: bounds for a hostile file.
const MAX_NAME: usize = 1024;
const MAX_TENSORS: usize = 100_000;

/// Collects the tensors of the dict, list or module that `pickle` stands for, named by the dotted path of keys and attributes.
/// Those of kinds that are not read are left out with a note.
///
/// `storages` has the bytes of each storage by its key, no fewer than the pickle says.
pub(crate) fn tensors(
    source: &Arc<Source>,
    pickle: &Pickle,
    storages: &HashMap<&str, Region>,
) -> Result<Contents, CheckpointError> {
    let mut walk = Walk {
        tensors: Tensors {
            source,
            pickle,
            storages,
        },
        name: String::new(),
        // Each reference to a value took a byte or more, so only one that multiplies by sharing comes this far.
        steps: pickle.length.saturating_mul(4) + 1000,
        module: None,
        in_module: false,
        contents: Contents::default(),
    };
    match &pickle[pickle.root] {
        Value::Object(object) if !matches!(walk.tensors.rebuild("", object)?, Rebuilt::Other) => {
            return Err(source.not_a_state_dict("it holds one tensor, without a name"));
        }
        // `torch.save([model.state_dict(), epoch])` is a list.
        Value::Dict(_) | Value::Object(_) | Value::Tuple(_) | Value::List(_) => {
            walk.visit(pickle.root, 0)?
        }
        _ => return Err(source.not_a_state_dict("it does not hold a dict")),
    }
    if !walk.contents.is_empty() {
        return Ok(walk.contents);
    }
    Err(source.not_a_state_dict(match walk.module {
        Some(class) => format!(
            "it holds a whole pickled module ({class}) without parameters; save \
             model.state_dict() instead"
        ),
        None if pickle.values().any(is_array) => {
            "it holds NumPy arrays; save torch's tensors instead".into()
        }
        None => "it contains no tensors".into(),
    }))
}

/// Whether it is what NumPy's arrays are made by.
fn is_array(value: &Value) -> bool {
    matches!(value, Value::Global { module, name: "_reconstruct" } if module.starts_with("numpy"))
}

struct Walk<'w, 'a> {
    tensors: Tensors<'w, 'a>,
    /// The dotted path to where the walk is.
    name: String,
    steps: usize,
    /// The class of the first pickled module on the way that has no tensors.
    module: Option<String>,
    in_module: bool,
    contents: Contents,
}

impl<'w, 'a> Walk<'w, 'a> {
    fn visit(&mut self, id: Id, depth: usize) -> Result<(), CheckpointError> {
        let pickle = self.tensors.pickle;
        if depth == MAX_DEPTH {
            return Err(self.corrupt(format!("dicts nested more than {MAX_DEPTH} deep")));
        }
        match &pickle[id] {
            Value::Dict(items) => {
                self.visit_items(items, depth)?;
                self.visit_metadata(id)
            }
            Value::Tuple(parts) | Value::List(parts) => parts
                .iter()
                .enumerate()
                .try_for_each(|(i, &part)| self.visit_at(&i.to_string(), part, depth)),
            Value::Object(object) => match self.tensors.rebuild(&self.name, object)? {
                Rebuilt::Tensor(tensor) => self.add(tensor),
                Rebuilt::Unreadable(error) => {
                    self.contents.leave_out(error);
                    Ok(())
                }
                Rebuilt::Other => match self.module_state(object) {
                    Some(state) => self.visit_module(object, &state, depth),
                    None => match self.compiled(object) {
                        Some(module) => self.visit(module, depth + 1),
                        None => self.visit_items(&object.items, depth),
                    },
                },
            },
            _ => Ok(()),
        }
    }

    /// Visits what a module's `state_dict` has: its parameters, its persistent buffers, and those of its modules.
    fn visit_module(
        &mut self,
        object: &Object,
        state: &HashMap<&str, Id>,
        depth: usize,
    ) -> Result<(), CheckpointError> {
        let pickle = self.tensors.pickle;
        self.step(state.len())?;
        let is_outermost = !self.in_module;
        let before = (self.contents.tensors.len(), self.contents.notes.len());
        self.in_module = true;
        let items = |name: &str| match state.get(name).map(|&id| &pickle[id]) {
            Some(Value::Dict(items)) => items.as_slice(),
            _ => &[],
        };
        let passing = state.get("_non_persistent_buffers_set");
        let passing = passing.and_then(|&set| self.members(set)).unwrap_or(&[]);
        let passing: HashSet<&str> = passing.iter().filter_map(|&id| pickle.str(id)).collect();
        self.visit_items(items("_parameters"), depth)?;
        for &(key, value) in items("_buffers") {
            match pickle.str(key) {
                Some(name) if !passing.contains(name) => self.visit_at(name, value, depth)?,
                _ => {}
            }
        }
        let class = self.class_name(object.callable);
        let eps = state.get("eps").map(|&eps| &pickle[eps]);
        if let (Some(norm), Some(&Value::Float(eps))) = (self.norm(""), eps) {
            norm.eps = Some(eps);
            if class.ends_with(".FrozenBatchNorm2d") {
                norm.kind = Some(NormKind::FrozenBatchNorm2d);
            }
        }
        self.visit_items(items("_modules"), depth)?;
        self.in_module = !is_outermost;
        if is_outermost && before == (self.contents.tensors.len(), self.contents.notes.len()) {
            // A loss function is no loss.
            if !class.starts_with("torch.nn.") {
                self.contents.note(format!(
                    "`{}` is a whole pickled module ({class}) without parameters; save \
                     model.state_dict() instead",
                    self.name
                ));
            }
            self.module.get_or_insert(class);
        }
        Ok(())
    }

    /// Notes what a state dict tells of its norms besides their tensors: the versions of their classes.
    fn visit_metadata(&mut self, dict: Id) -> Result<(), CheckpointError> {
        let pickle = self.tensors.pickle;
        let Some(attributes) = pickle.attributes(dict) else {
            return Ok(());
        };
        let Some(Value::Dict(modules)) = self.entry(attributes, "_metadata")? else {
            return Ok(());
        };
        self.step(modules.len())?;
        for &(module, about) in modules {
            let kind = match self.entry(about, "version")? {
                Some(Value::Int(1)) => NormKind::FrozenBatchNorm2d,
                Some(Value::Int(2)) => NormKind::BatchNorm2d,
                _ => continue,
            };
            if let Some(norm) = pickle.str(module).and_then(|module| self.norm(module)) {
                norm.kind = Some(kind);
            }
        }
        Ok(())
    }

    /// The entry called `name`, if it is a dict that has one.
    fn entry(&mut self, dict: Id, name: &str) -> Result<Option<&'w Value<'a>>, CheckpointError> {
        let pickle = self.tensors.pickle;
        let Value::Dict(items) = &pickle[dict] else {
            return Ok(None);
        };
        self.step(items.len())?;
        let mut items = items.iter();
        let value = items.find(|(key, _)| pickle.str(*key) == Some(name));
        Ok(value.map(|&(_, value)| &pickle[value]))
    }

    /// What is known of the norm of that name, relative to where the walk is; none if there is no such norm.
    fn norm(&mut self, module: &str) -> Option<&mut NormFacts> {
        let path = [self.name.as_str(), module, "running_var"];
        let path: Vec<&str> = path.into_iter().filter(|part| !part.is_empty()).collect();
        let tensor = self.contents.tensors.get_mut(&path.join("."))?;
        Some(&mut tensor.norm)
    }

    fn visit_items(&mut self, items: &[(Id, Id)], depth: usize) -> Result<(), CheckpointError> {
        for (i, &(key, value)) in items.iter().enumerate() {
            // Other keys, such as enums, are told apart by their place.
            let key = self.key(key).unwrap_or_else(|| format!("?{i}"));
            self.visit_at(&key, value, depth)?;
        }
        Ok(())
    }

    fn visit_at(&mut self, key: &str, value: Id, depth: usize) -> Result<(), CheckpointError> {
        self.step(1)?;
        if !matches!(
            self.tensors.pickle[value],
            Value::Dict(_) | Value::Tuple(_) | Value::List(_) | Value::Object(_)
        ) {
            return Ok(());
        }
        let before = self.name.len();
        if before + key.len() >= MAX_NAME {
            return Err(self.corrupt(format!("a name longer than {MAX_NAME} bytes")));
        }
        if before > 0 {
            self.name.push('.');
        }
        self.name.push_str(key);
        self.visit(value, depth + 1)?;
        self.name.truncate(before);
        Ok(())
    }

    fn add(&mut self, tensor: StoredTensor) -> Result<(), CheckpointError> {
        if self.contents.tensors.len() == MAX_TENSORS {
            return Err(self.corrupt(format!("more than {MAX_TENSORS} tensors")));
        }
        match self.contents.tensors.insert(self.name.clone(), tensor) {
            None => Ok(()),
            Some(_) => Err(self.corrupt(format!("two tensors are called `{}`", self.name))),
        }
    }

    fn step(&mut self, steps: usize) -> Result<(), CheckpointError> {
        let left = self.steps.checked_sub(steps);
        self.steps =
            left.ok_or_else(|| self.corrupt("values that refer to each other in a cycle"))?;
        Ok(())
    }

    fn corrupt(&self, reason: impl Into<String>) -> CheckpointError {
        self.tensors.source.corrupt(reason)
    }

    /// A dict's key as a part of a name, as Python would print it; none for what is no plain value.
    fn key(&self, id: Id) -> Option<String> {
        let plain = |id: Id| match self.tensors.pickle[id] {
            Value::None => Some("None".to_string()),
            Value::Bool(true) => Some("True".to_string()),
            Value::Bool(false) => Some("False".to_string()),
            Value::Int(number) => Some(number.to_string()),
            Value::Float(number) => Some(format!("{number:?}")),
            Value::Str(text) => Some(text.to_string()),
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        match &self.tensors.pickle[id] {
            Value::Tuple(parts) => {
                let parts: Option<Vec<String>> = parts.iter().map(|&part| plain(part)).collect();
                Some(format!("({})", parts?.join(", ")))
            }
            _ => plain(id),
        }
    }

    /// The attributes of an object that is a `torch.nn.Module`, by their names.
    fn module_state(&self, object: &Object) -> Option<HashMap<&'a str, Id>> {
        let Value::Dict(items) = &self.tensors.pickle[object.state?] else {
            return None;
        };
        let name = |&(key, value)| Some((self.tensors.pickle.str(key)?, value));
        let state: HashMap<&str, Id> = items.iter().filter_map(name).collect();
        (state.contains_key("_parameters") && state.contains_key("_modules")).then_some(state)
    }

    /// The module that `torch.compile` has wrapped, which is pickled as an argument.
    fn compiled(&self, object: &Object) -> Option<Id> {
        let (_, class) = self.tensors.pickle.global(object.callable)?;
        let arguments = self.tensors.pickle.sequence(object.args)?;
        let module = arguments.first().copied();
        module.filter(|_| class == "OptimizedModule")
    }

    /// The members of a set, which old protocols make of a list by a call.
    fn members(&self, id: Id) -> Option<&[Id]> {
        let pickle = self.tensors.pickle;
        match &pickle[id] {
            Value::Object(object) => {
                let (_, name) = pickle.global(object.callable)?;
                let &[list] = pickle.sequence(object.args)? else {
                    return None;
                };
                pickle.sequence(list).filter(|_| name == "set")
            }
            _ => pickle.sequence(id),
        }
    }

    /// The name of a class; the legacy format wraps a module's as `("module", class, file, source)`.
    fn class_name(&self, callable: Id) -> String {
        let class = match self.tensors.pickle[callable] {
            Value::Persistent(id) => self
                .tensors
                .pickle
                .sequence(id)
                .and_then(|parts| parts.get(1).copied()),
            _ => Some(callable),
        };
        match class.and_then(|class| self.tensors.pickle.global(class)) {
            Some((module, name)) => format!("{module}.{name}"),
            None => "of an unknown class".into(),
        }
    }
}
