//! Sets of channels that are one: a forest of disjoint sets, some of which are fixed.

/// Number of a channel of some axis of some tensor.
pub(crate) type Channel = usize;

/// Disjoint sets of channels.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    parents: Vec<Channel>,
    fixed: Vec<bool>,
}

impl Channels {
    /// Makes some channels, each in a set by itself.
    pub(crate) fn fresh(&mut self, count: usize) -> Vec<Channel> {
        let first = self.parents.len();
        self.parents.extend(first..first + count);
        self.fixed.resize(first + count, false);
        (first..first + count).collect()
    }

    /// The channel that stands for a set.
    pub(crate) fn root(&mut self, channel: Channel) -> Channel {
        let mut root = channel;
        while self.parents[root] != root {
            // Halves the path.
            self.parents[root] = self.parents[self.parents[root]];
            root = self.parents[root];
        }
        root
    }

    /// Makes one set of two.
    pub(crate) fn join(&mut self, a: Channel, b: Channel) {
        let (a, b) = (self.root(a), self.root(b));
        // The older channel stands for both, so that sets keep their order.
        let (root, child) = (a.min(b), a.max(b));
        self.parents[child] = root;
        self.fixed[root] |= self.fixed[child];
    }

    /// Makes the channels of a set ones that stay.
    pub(crate) fn fix(&mut self, channel: Channel) {
        let root = self.root(channel);
        self.fixed[root] = true;
    }

    /// The channel that stands for a set, unless the set stays.
    pub(crate) fn removable(&mut self, channel: Channel) -> Option<Channel> {
        let root = self.root(channel);
        (!self.fixed[root]).then_some(root)
    }
}
