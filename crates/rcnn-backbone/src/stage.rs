//! The stages of a backbone as data: what costs, freezing, surgery and analysis know of an architecture.

/// A stage of a backbone: modules that follow one another, with one output.
///
/// Stages are listed in the order of the forward pass. torchvision's `trainable_backbone_layers` counts
/// them from the last to the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Its name in surgery, rules and tables, such as `layer2`.
    pub name: String,
    /// Paths of its modules, from whatever lists the stages: `["conv1", "bn1"]` in a ResNet,
    /// `["body.conv1", "body.bn1"]` in a backbone around it.
    pub modules: Vec<String>,
    /// Channels of its output; those of the stage before where it is not built.
    pub channels: usize,
    /// Pixels of the image that a location of its output stands for, along each axis.
    pub stride: usize,
    /// Whether it is built. Other stages are the identity, or come after the last one that is used.
    pub is_built: bool,
    /// Whether a feature map may be made of its output.
    pub is_returnable: bool,
    /// Its blocks, where it is made of some.
    pub blocks: Vec<Block>,
}

/// A block of a [`Stage`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name in surgery, such as `layer2.1`.
    pub name: String,
    /// Paths of its modules, from whatever lists the stages. The first names it in tables.
    pub modules: Vec<String>,
    /// Whether it can be dropped.
    pub state: BlockState,
}

/// Whether a [`Block`] can be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// It changes the number of channels or the resolution, and stays as long as its stage.
    ShapeChanging,
    /// It could be the identity.
    Droppable,
    /// It is the identity.
    Dropped,
}

impl Stage {
    /// Creates a stage of one module, named after it, without blocks.
    pub fn new(name: impl Into<String>, channels: usize, stride: usize) -> Self {
        let name = name.into();
        Self {
            modules: vec![name.clone()],
            name,
            channels,
            stride,
            is_built: true,
            is_returnable: true,
            blocks: Vec::new(),
        }
    }

    /// The stage as a module around its own lists it, under which that goes by a name.
    pub(crate) fn within(mut self, module: &str) -> Self {
        let blocks = self.blocks.iter_mut().flat_map(|block| &mut block.modules);
        for path in self.modules.iter_mut().chain(blocks) {
            *path = format!("{module}.{path}");
        }
        self
    }

    /// Whether a parameter belongs to the stage, by its path in the module that lists the stages.
    pub fn owns(&self, parameter: &str) -> bool {
        self.modules.iter().any(|module| is_in(parameter, module))
    }

    /// Whether a parameter of the stage belongs to a dropped block, or the stage is not built.
    pub fn is_dropped(&self, parameter: &str) -> bool {
        let dropped = |block: &Block| block.state == BlockState::Dropped && block.owns(parameter);
        self.owns(parameter) && (!self.is_built || self.blocks.iter().any(dropped))
    }
}

impl Block {
    /// Whether a parameter belongs to the block, by its path in the module that lists the stages.
    pub fn owns(&self, parameter: &str) -> bool {
        self.modules.iter().any(|module| is_in(parameter, module))
    }
}

/// Whether a parameter is one of a module, or of a module inside it.
fn is_in(parameter: &str, module: &str) -> bool {
    let rest = parameter.strip_prefix(module);
    rest.is_some_and(|rest| rest.starts_with('.'))
}
