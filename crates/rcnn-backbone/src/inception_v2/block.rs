//! A block of Inception v2: branches over one map, whose outputs are put side by side.

use burn::module::{
    AutodiffModule, Content, Devices, HasAutodiffModule, Module, ModuleDisplay,
    ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::nn::PaddingConfig2d;
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use rcnn_ops::{DetectionBackend, Phase, average_pool3x3, concat_channels, max_pool_same};

use super::config::{ConvSettings, InceptionV2Depth};
use super::table::{BlockSpec, BranchSpec};
use crate::{ConvNorm, ConvNormConfig, conv_norm_relu};

/// The pooling that a branch begins with, 3x3 with TensorFlow's `SAME` padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The means of windows.
    Average,
    /// The largest values of windows.
    Max,
    /// The largest values of every second window.
    MaxHalf,
}

/// A branch of an [`InceptionBlock`]: a pooling, then convolutions with norm and ReLU, which have the names of
/// TensorFlow's: `conv2d_0a_1x1`, `conv2d_0b_3x3`. Which there are is another in each.
#[derive(Debug, Clone)]
pub struct Branch<B: Backend> {
    convs: Vec<ConvNorm<B>>,
    names: Vec<&'static str>,
    pool: Option<Pool>,
}

impl BranchSpec {
    /// Name, output channels in the paper, side of the kernel and stride of each convolution, in their order.
    pub(super) fn convs(&self) -> impl Iterator<Item = (&'static str, usize, usize, usize)> {
        let convs = [
            ("conv2d_0a_1x1", self.conv2d_0a_1x1, 1, 1),
            ("conv2d_0b_1x1", self.conv2d_0b_1x1, 1, 1),
            ("conv2d_0b_3x3", self.conv2d_0b_3x3, 3, 1),
            ("conv2d_0c_3x3", self.conv2d_0c_3x3, 3, 1),
            ("conv2d_1a_3x3", self.conv2d_1a_3x3, 3, 2),
        ];
        let convs = convs.into_iter();
        convs.filter_map(|(name, out, kernel, stride)| Some((name, out?, kernel, stride)))
    }

    fn init<B: Backend>(
        &self,
        input: usize,
        settings: ConvSettings,
        device: &B::Device,
    ) -> Branch<B> {
        let mut channels = input;
        let convs = self.convs().map(|(name, out, kernel, stride)| {
            let out = settings.depth.channels(out);
            let conv = settings.conv([channels, out], kernel, stride, device);
            channels = out;
            (name, conv)
        });
        let (names, convs) = convs.unzip();
        Branch {
            convs,
            names,
            pool: self.pool,
        }
    }
}

/// Container type that visitors see.
const CONTAINER: &str = "Struct:Branch";

impl<B: Backend> Branch<B> {
    /// With other convolutions in the place of these, each made of one and its name.
    fn map_convs<C: Backend>(
        self,
        mut map: impl FnMut(&str, ConvNorm<B>) -> ConvNorm<C>,
    ) -> Branch<C> {
        let convs = self.names.iter().zip(self.convs);
        Branch {
            convs: convs.map(|(name, conv)| map(name, conv)).collect(),
            names: self.names,
            pool: self.pool,
        }
    }
}

/// As of a struct with a field for each convolution. There are dozens of them, most of which each branch lacks: as fields they
/// would fill the stack.
impl<B: Backend> Module<B> for Branch<B> {
    type Record = <Vec<ConvNorm<B>> as Module<B>>::Record;

    fn collect_devices(&self, devices: Devices<B>) -> Devices<B> {
        self.convs.collect_devices(devices)
    }

    fn fork(self, device: &B::Device) -> Self {
        self.map_convs(|_, conv| conv.fork(device))
    }

    fn to_device(self, device: &B::Device) -> Self {
        self.map_convs(|_, conv| conv.to_device(device))
    }

    fn visit<Visitor: ModuleVisitor<B>>(&self, visitor: &mut Visitor) {
        for (name, conv) in self.names.iter().zip(&self.convs) {
            visitor.enter_module(name, CONTAINER);
            conv.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
    }

    fn map<Mapper: ModuleMapper<B>>(self, mapper: &mut Mapper) -> Self {
        self.map_convs(|name, conv| {
            mapper.enter_module(name, CONTAINER);
            let conv = conv.map(mapper);
            mapper.exit_module(name, CONTAINER);
            conv
        })
    }

    fn load_record(mut self, record: Self::Record) -> Self {
        self.convs = self.convs.load_record(record);
        self
    }

    fn into_record(self) -> Self::Record {
        self.convs.into_record()
    }
}

impl<B: AutodiffBackend> AutodiffModule<B> for Branch<B> {
    type InnerModule = Branch<B::InnerBackend>;

    fn valid(&self) -> Self::InnerModule {
        self.clone().map_convs(|_, conv| conv.valid())
    }

    fn from_inner(module: Self::InnerModule) -> Self {
        module.map_convs(|_, conv| ConvNorm::from_inner(conv))
    }
}

impl<B: AutodiffBackend> HasAutodiffModule<B> for Branch<B::InnerBackend> {
    type TrainModule = Branch<B>;
}

impl<B: Backend> ModuleDisplayDefault for Branch<B> {
    fn content(&self, content: Content) -> Option<Content> {
        ModuleDisplayDefault::content(&self.convs, content)
    }

    fn num_params(&self) -> usize {
        Module::num_params(&self.convs)
    }
}

impl<B: Backend> ModuleDisplay for Branch<B> {}

impl ConvSettings {
    /// A convolution with its norm and TensorFlow's padding.
    pub(super) fn conv<B: Backend>(
        self,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        device: &B::Device,
    ) -> ConvNorm<B> {
        let config = ConvNormConfig {
            stride,
            norm: Some((self.norm, self.norm_eps)),
            ..ConvNormConfig::new(channels, kernel)
        };
        let (mut conv, norm) = config.init(device);
        conv.padding = PaddingConfig2d::Same;
        (conv, norm)
    }
}

impl<B: DetectionBackend> Branch<B> {
    fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        let pooled = match self.pool {
            None => input,
            Some(Pool::Average) => average_pool3x3(input),
            Some(Pool::Max) => max_pool_same(input, 3, 1),
            Some(Pool::MaxHalf) => max_pool_same(input, 3, 2),
        };
        let convs = self.convs.iter();
        convs.fold(pooled, |x, conv| conv_norm_relu(conv, x, phase))
    }
}

/// A block of Inception v2.
#[derive(Module, Debug)]
pub struct InceptionBlock<B: Backend> {
    /// A 1x1 convolution; where the block halves the resolution, a 3x3 one after it.
    pub branch_0: Branch<B>,
    /// A 1x1 convolution, then 3x3 ones.
    pub branch_1: Branch<B>,
    /// The same; where the block halves the resolution, the pooling.
    pub branch_2: Branch<B>,
    /// A pooling and a 1x1 convolution.
    pub branch_3: Option<Branch<B>>,
    /// Whether the block is the identity.
    #[module(skip)]
    is_dropped: bool,
}

impl BlockSpec {
    pub(super) fn init<B: Backend>(
        &self,
        input: usize,
        settings: ConvSettings,
        device: &B::Device,
    ) -> InceptionBlock<B> {
        let branches = self.branches().into_iter();
        let mut branches = branches.map(|branch| branch.init(input, settings, device));
        let mut next = || branches.next();
        let three = "three branches or four";
        InceptionBlock {
            branch_0: next().expect(three),
            branch_1: next().expect(three),
            branch_2: next().expect(three),
            branch_3: next(),
            is_dropped: false,
        }
    }

    /// Channels of the output.
    pub(super) fn channels(&self, input: usize, depth: InceptionV2Depth) -> usize {
        let branches = self.branches().into_iter();
        let branches = branches.map(|branch| branch.channels().map(|c| depth.channels(c)));
        branches.map(|channels| channels.unwrap_or(input)).sum()
    }
}

impl<B: Backend> InceptionBlock<B> {
    /// Makes the block the identity, and says whether it was not.
    pub(super) fn drop(&mut self) -> bool {
        !std::mem::replace(&mut self.is_dropped, true)
    }
}

impl<B: DetectionBackend> InceptionBlock<B> {
    /// Applies the branches and concatenates their outputs.
    ///
    /// # Shapes
    /// - input: `[N, C, H, W]`
    /// - output: `[N, C', H, W]`, or half of H and W, rounded up
    pub fn forward(&self, input: Tensor<B, 4>, phase: Phase) -> Tensor<B, 4> {
        if self.is_dropped {
            return input;
        }
        let branches = [&self.branch_0, &self.branch_1, &self.branch_2];
        let branches = branches.into_iter().chain(&self.branch_3);
        concat_channels(
            branches
                .map(|branch| branch.forward(input.clone(), phase))
                .collect(),
        )
    }
}
