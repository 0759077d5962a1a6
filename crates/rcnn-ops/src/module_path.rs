//! Paths of modules, as visitors walk them.

use std::fmt;

/// Path of the module that a visitor is in: torchvision's name of it, since the variants of enums are left out.
#[derive(Debug, Clone, Default)]
pub struct ModulePath(Vec<String>);

impl ModulePath {
    /// Goes into a module: `enter_module` of a visitor.
    pub fn enter(&mut self, name: &str, container_type: &str) {
        if !is_variant(container_type) {
            self.0.push(name.to_string());
        }
    }

    /// Leaves a module: `exit_module` of a visitor.
    pub fn exit(&mut self, container_type: &str) {
        if !is_variant(container_type) {
            self.0.pop();
        }
    }

    /// Name of the innermost module or parameter.
    pub fn last(&self) -> Option<&str> {
        self.0.last().map(String::as_str)
    }
}

/// Path of the module that has a parameter, by the parameter's.
pub fn module_of(parameter: &str) -> &str {
    parameter.rsplit_once('.').map_or("", |(module, _)| module)
}

fn is_variant(container_type: &str) -> bool {
    container_type.starts_with("Enum:")
}

impl fmt::Display for ModulePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
