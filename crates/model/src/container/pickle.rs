//! Python's pickle machine without its functions: bytes in, a tree of plain values out.
//!
//! Values lie in one table and refer to each other by position. So a value used a million times
//! exists once, a cycle does no harm, and nothing is dropped recursively. A call (`REDUCE`,
//! `NEWOBJ`) becomes a value that remembers its callable; the callable has to be in
//! `names.rs`.

mod names;
mod value;

pub(super) use names::{Callable, Context};
pub(super) use value::{Id, Tree, Value};

use super::{Refusal, input::Input};
use std::{collections::HashMap, io::Read};

/// Most values of a pickle.
const MAX_VALUES: usize = 10_000_000;
/// Deepest nesting.
const MAX_DEPTH: u16 = 256;

/// Reads one pickle; what follows its end is left in the input.
pub(super) fn read<R: Read>(input: &mut Input<R>, context: Context) -> Result<Tree, Refusal> {
    let mut machine = Machine {
        input,
        context,
        tree: Tree::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let opcode = machine.input.byte()?;
        if opcode == b'.' {
            let root = machine.pop()?;
            machine.tree.root = root;
            return Ok(machine.tree);
        }
        machine.execute(opcode)?;
    }
}

struct Machine<'a, R> {
    input: &'a mut Input<R>,
    context: Context,
    tree: Tree,
    stack: Vec<Id>,
    /// Heights of the stack at the open marks.
    marks: Vec<usize>,
    /// A map: an index of four thousand million must not become a table.
    memo: HashMap<u64, Id>,
}

impl<R: Read> Machine<'_, R> {
    fn bad(&self, reason: &str) -> Refusal {
        Refusal::new("bad_pickle", format!("`{}` is no pickle: {reason}", self.input.name()))
    }

    fn push(&mut self, value: Value) -> Result<(), Refusal> {
        let id = self.tree.add(value);
        if self.tree.len() > MAX_VALUES {
            let reason = format!("`{}` holds more than {MAX_VALUES} values", self.input.name());
            return Err(Refusal::new("too_large", reason));
        }
        self.check_depth(id)?;
        self.stack.push(id);
        Ok(())
    }

    fn check_depth(&self, id: Id) -> Result<(), Refusal> {
        if self.tree.depth(id) <= MAX_DEPTH {
            return Ok(());
        }
        let reason = format!("`{}` nests deeper than {MAX_DEPTH} levels", self.input.name());
        Err(Refusal::new("nesting_too_deep", reason))
    }

    /// The topmost value, which must lie above the last mark.
    fn pop(&mut self) -> Result<Id, Refusal> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return Err(self.bad("a value is missing on the stack"));
        }
        self.stack.pop().ok_or_else(|| self.bad("a value is missing on the stack"))
    }

    fn top(&self) -> Result<Id, Refusal> {
        self.stack.last().copied().ok_or_else(|| self.bad("the stack is empty"))
    }

    /// All values above the last mark.
    fn pop_marked(&mut self) -> Result<Vec<Id>, Refusal> {
        let height = self.marks.pop().ok_or_else(|| self.bad("a mark is missing"))?;
        Ok(self.stack.split_off(height))
    }

    fn remember(&mut self, index: u64) -> Result<(), Refusal> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<(), Refusal> {
        let id = self.memo.get(&index).copied();
        let id = id.ok_or_else(|| self.bad("a value that was never stored is asked for"))?;
        self.stack.push(id);
        Ok(())
    }

    fn little(&mut self, count: usize) -> Result<u64, Refusal> {
        let bytes = self.input.bytes(count as u64)?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    }

    #[allow(clippy::too_many_lines, reason = "one line an opcode is the clearest table there is")]
    fn execute(&mut self, opcode: u8) -> Result<(), Refusal> {
        match opcode {
            0x80 => self.protocol(),
            0x95 => self.frame(),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => self.pop().map(drop),
            b'1' => self.pop_marked().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(i64::from(number)))
            }
            b'K' => self.number(1),
            b'M' => self.number(2),
            b'I' => self.integer_line(false),
            b'L' => self.integer_line(true),
            0x8a => {
                let count = self.little(1)?;
                self.long(count)
            }
            0x8b => {
                let count = self.little(4)?;
                self.long(count)
            }
            b'F' => {
                let line = self.input.line()?;
                let number = line.trim().parse().map_err(|_| self.bad("a number is unreadable"))?;
                self.push(Value::Float(number))
            }
            b'G' => {
                let number = f64::from_be_bytes(self.input.array()?);
                self.push(Value::Float(number))
            }
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'V' => {
                let line = self.input.line()?;
                self.push(Value::Text(line.into()))
            }
            b'S' => {
                let line = self.input.line()?;
                let line = line.trim_matches(['\'', '"']).to_owned();
                self.push(Value::Text(line.into()))
            }
            b'T' | b'B' => self.bytes(4),
            b'U' | b'C' => self.bytes(1),
            0x8e => self.bytes(8),
            b')' => self.push(Value::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_marked()?;
                self.push(Value::Tuple(items))
            }
            0x85..=0x87 => self.tuple(usize::from(opcode - 0x84)),
            b']' => self.push(Value::List(Vec::new())),
            b'l' => {
                let items = self.pop_marked()?;
                self.push(Value::List(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_marked()?;
                self.extend(items)
            }
            b'}' => self.push(Value::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_marked()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set(items)
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set(vec![key, value])
            }
            b'u' => {
                let items = self.pop_marked()?;
                self.set(items)
            }
            0x8f => self.push(Value::List(Vec::new())),
            0x91 => {
                let items = self.pop_marked()?;
                self.push(Value::List(items))
            }
            b'q' => {
                let index = self.little(1)?;
                self.remember(index)
            }
            b'r' => {
                let index = self.little(4)?;
                self.remember(index)
            }
            b'p' => {
                let index = self.index_line()?;
                self.remember(index)
            }
            0x94 => self.remember(self.memo.len() as u64),
            b'h' => {
                let index = self.little(1)?;
                self.recall(index)
            }
            b'j' => {
                let index = self.little(4)?;
                self.recall(index)
            }
            b'g' => {
                let index = self.index_line()?;
                self.recall(index)
            }
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.global(&module, &name)
            }
            0x93 => self.stack_global(),
            b'R' | 0x81 => self.call(),
            b'b' => self.build(),
            b'Q' => {
                let key = self.pop()?;
                self.push(Value::Persistent(key))
            }
            b'i' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
                self.context.check(&module, &name, self.input.name())?;
                Err(self.unsupported(opcode))
            }
            _ => Err(self.unsupported(opcode)),
        }
    }

    fn unsupported(&self, opcode: u8) -> Refusal {
        let reason = format!(
            "`{}` uses the pickle opcode {opcode:#04x}, which no checkpoint needs",
            self.input.name()
        );
        Refusal::new("unsupported_opcode", reason)
    }

    fn protocol(&mut self) -> Result<(), Refusal> {
        match self.input.byte()? {
            0..=5 => Ok(()),
            number => {
                let reason = format!(
                    "`{}` is written in pickle protocol {number}; 0 to 5 exist",
                    self.input.name()
                );
                Err(Refusal::new("unsupported_protocol", reason))
            }
        }
    }

    /// A frame is a hint for readers; a lie about its length is a lie about the file.
    fn frame(&mut self) -> Result<(), Refusal> {
        let length = self.little(8)?;
        if length <= self.input.left() { Ok(()) } else { Err(self.input.truncated()) }
    }

    fn number(&mut self, bytes: usize) -> Result<(), Refusal> {
        let number = self.little(bytes)?;
        self.push(Value::Int(number as i64))
    }

    fn integer_line(&mut self, long: bool) -> Result<(), Refusal> {
        let line = self.input.line()?;
        let value = match (line.as_str(), long) {
            ("00", false) => Value::Bool(false),
            ("01", false) => Value::Bool(true),
            (text, _) => {
                let text = text.trim().trim_end_matches('L');
                Value::Int(text.parse().map_err(|_| self.bad("a number is unreadable"))?)
            }
        };
        self.push(value)
    }

    fn index_line(&mut self) -> Result<u64, Refusal> {
        let line = self.input.line()?;
        line.trim().parse().map_err(|_| self.bad("an index is unreadable"))
    }

    /// An integer of any length, little-endian and signed.
    fn long(&mut self, count: u64) -> Result<(), Refusal> {
        let bytes = self.input.bytes(count)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        let value = match bytes.len() <= 8 {
            true => {
                wide[..bytes.len()].copy_from_slice(&bytes);
                Value::Int(i64::from_le_bytes(wide))
            }
            false => Value::Long(bytes.into()),
        };
        self.push(value)
    }

    fn text(&mut self, length: usize) -> Result<(), Refusal> {
        let count = self.little(length)?;
        let text = self.input.text(count)?;
        self.push(Value::Text(text.into()))
    }

    /// Bytes, and Python 2's strings, which are bytes: text where they are UTF-8.
    fn bytes(&mut self, length: usize) -> Result<(), Refusal> {
        let count = self.little(length)?;
        let bytes = self.input.bytes(count)?;
        let value = match String::from_utf8(bytes) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Opaque,
        };
        self.push(value)
    }

    fn tuple(&mut self, count: usize) -> Result<(), Refusal> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), Refusal> {
        let top = self.top()?;
        match self.tree.extend(top, &items) {
            true => self.check_depth(top),
            false => Err(self.bad("something is appended to what is no list")),
        }
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), Refusal> {
        let top = self.top()?;
        if !items.len().is_multiple_of(2) {
            return Err(self.bad("a key without a value"));
        }
        match self.tree.set(top, &items) {
            true => self.check_depth(top),
            false => Err(self.bad("a key is set in what is no dictionary")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Refusal> {
        let callable = self.context.check(module, name, self.input.name())?;
        self.push(Value::Global(callable))
    }

    fn stack_global(&mut self) -> Result<(), Refusal> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.tree.text(module), self.tree.text(name)) {
            (Some(module), Some(name)) => {
                let (module, name) = (module.to_owned(), name.to_owned());
                self.global(&module, &name)
            }
            _ => Err(self.bad("the name of a callable is no text")),
        }
    }

    fn call(&mut self) -> Result<(), Refusal> {
        let (arguments, callable) = (self.pop()?, self.pop()?);
        let Value::Global(name) = self.tree.get(callable) else {
            return Err(self.bad("something is called that is no callable"));
        };
        let value = if name.is_dictionary() {
            Value::Dict(self.tree.pairs(arguments))
        } else if name.is_list() {
            Value::List(self.tree.first_items(arguments))
        } else {
            Value::Call { callable: name.clone(), arguments, state: None }
        };
        self.push(value)
    }

    /// Gives an object its state; that of a dictionary is of no interest (`_metadata`).
    fn build(&mut self) -> Result<(), Refusal> {
        let state = self.pop()?;
        let top = self.top()?;
        self.tree.give_state(top, state);
        self.check_depth(top)
    }
}
