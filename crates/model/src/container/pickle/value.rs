//! The values of a pickle.

use super::names::Callable;

/// Position of a value in its tree.
pub(in super::super) type Id = u32;

/// A value. Others are meant by position.
#[derive(Clone, Debug)]
pub(in super::super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits, as bytes.
    Long(Box<[u8]>),
    Float(#[allow(dead_code, reason = "kept so that a value can be printed")] f64),
    Text(Box<str>),
    /// Bytes that are no text.
    Opaque,
    Tuple(Vec<Id>),
    /// Lists and sets.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Callable),
    /// What would be a call.
    Call {
        callable: Callable,
        arguments: Id,
        state: Option<Id>,
    },
    /// A reference to something outside of the pickle: a storage.
    Persistent(Id),
}

/// All values of a pickle.
#[derive(Debug, Default)]
pub(in super::super) struct Tree {
    values: Vec<Value>,
    depths: Vec<u16>,
    pub(in super::super) root: Id,
}

impl Tree {
    pub(super) fn add(&mut self, value: Value) -> Id {
        let inside = match &value {
            Value::Tuple(items) | Value::List(items) => self.deepest(items),
            Value::Dict(pairs) => {
                pairs.iter().map(|(k, v)| self.depth(*k).max(self.depth(*v))).max().unwrap_or(0)
            }
            Value::Call { arguments, .. } => self.depth(*arguments),
            Value::Persistent(key) => self.depth(*key),
            _ => 0,
        };
        self.values.push(value);
        self.depths.push(inside.saturating_add(1));
        (self.values.len() - 1) as Id
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// All values.
    pub(in super::super) fn ids(&self) -> impl Iterator<Item = Id> {
        0..self.values.len() as Id
    }

    /// Levels below and with this value, as far as they were there when it was filled.
    pub(super) fn depth(&self, id: Id) -> u16 {
        self.depths[id as usize]
    }

    fn deepest(&self, items: &[Id]) -> u16 {
        items.iter().map(|id| self.depth(*id)).max().unwrap_or(0)
    }

    fn deepen(&mut self, id: Id, items: &[Id]) {
        let depth = self.deepest(items).saturating_add(1);
        let own = &mut self.depths[id as usize];
        *own = depth.max(*own);
    }

    pub(in super::super) fn get(&self, id: Id) -> &Value {
        &self.values[id as usize]
    }

    pub(in super::super) fn text(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(in super::super) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id) {
            Value::Int(number) => Some(*number),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub(in super::super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    pub(in super::super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// The last value under a key of text.
    pub(in super::super) fn lookup(&self, dict: Id, key: &str) -> Option<Id> {
        let pairs = self.dict(dict)?;
        pairs.iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// Appends to a list; objects of other kinds swallow what they are given.
    pub(super) fn extend(&mut self, id: Id, items: &[Id]) -> bool {
        match &mut self.values[id as usize] {
            Value::List(list) => list.extend(items),
            Value::Call { .. } => {}
            _ => return false,
        }
        self.deepen(id, items);
        true
    }

    pub(super) fn set(&mut self, id: Id, items: &[Id]) -> bool {
        match &mut self.values[id as usize] {
            Value::Dict(dict) => {
                dict.extend(items.as_chunks::<2>().0.iter().map(|[k, v]| (*k, *v)))
            }
            Value::Call { .. } => {}
            _ => return false,
        }
        self.deepen(id, items);
        true
    }

    pub(super) fn give_state(&mut self, id: Id, given: Id) {
        if let Value::Call { state, .. } = &mut self.values[id as usize] {
            *state = Some(given);
            self.deepen(id, &[given]);
        }
    }

    /// The items of the first argument, as of `list(items)`.
    pub(super) fn first_items(&self, arguments: Id) -> Vec<Id> {
        let first = self.items(arguments).and_then(|items| items.first());
        first.and_then(|id| self.items(*id)).map(<[Id]>::to_vec).unwrap_or_default()
    }

    /// Pairs of the argument that is a list of pairs, as of `OrderedDict(pairs)`.
    pub(super) fn pairs(&self, arguments: Id) -> Vec<(Id, Id)> {
        let pair = |id: &Id| match self.items(*id) {
            Some([key, value]) => Some((*key, *value)),
            _ => None,
        };
        self.first_items(arguments).iter().filter_map(pair).collect()
    }
}
