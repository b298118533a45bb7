//! The closed list of names that a checkpoint may refer to.

use super::super::{Refusal, storage::Dtype};

/// A name from the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Callable {
    /// `_rebuild_tensor_v2(storage, offset, size, stride, ..)` and its predecessor.
    Tensor,
    /// `_rebuild_parameter(tensor, ..)`.
    Parameter,
    /// The type of a storage.
    Storage(Option<Dtype>),
    /// `OrderedDict` and its like.
    Dictionary,
    /// `list` and `set`.
    List,
    /// A class of a TorchScript archive.
    Script,
    /// Something harmless that is never a weight.
    Other,
}

impl Callable {
    pub(super) fn is_dictionary(&self) -> bool {
        *self == Self::Dictionary
    }

    pub(super) fn is_list(&self) -> bool {
        *self == Self::List
    }
}

/// In which kind of file a pickle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Context {
    /// A saved dictionary.
    Saved,
    /// A TorchScript archive, whose own classes have names.
    Script,
}

impl Context {
    /// What a name means, or its refusal; `file` is the pickle it stands in.
    pub(super) fn check(self, module: &str, name: &str, file: &str) -> Result<Callable, Refusal> {
        if let Some(callable) = known(module, name) {
            return Ok(callable);
        }
        if module.starts_with("__torch__") && self == Self::Script {
            return Ok(Callable::Script);
        }
        let full = clipguard_data::shown(&format!("{module}.{name}"));
        let (code, what) = match (module, name) {
            ("torch._utils", name) if name.starts_with("_rebuild_") && !name.contains('.') => {
                ("unsupported_rebuild", "a kind of tensor that is not read")
            }
            ("torch", name) if name.ends_with("Storage") => {
                ("unsupported_dtype", "a type of elements that is not read")
            }
            _ => (
                "unsafe_callable",
                "not among the names a checkpoint needs; a loader that trusts the file would \
                 run it",
            ),
        };
        Err(Refusal::new(code, format!("`{file}` refers to `{full}`: {what}")))
    }
}

fn known(module: &str, name: &str) -> Option<Callable> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor") => Callable::Tensor,
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
            Callable::Parameter
        }
        ("torch" | "torch.cuda", name) if name.ends_with("Storage") => {
            Callable::Storage(Some(storage(name.strip_suffix("Storage")?)?))
        }
        // The first format names tensors by their class.
        ("torch" | "torch.cuda", name) if name.ends_with("Tensor") => {
            Callable::Storage(Some(storage(name.strip_suffix("Tensor")?)?))
        }
        ("torch.storage", "UntypedStorage" | "TypedStorage") => Callable::Storage(None),
        ("collections", "OrderedDict" | "defaultdict" | "Counter") => Callable::Dictionary,
        ("builtins" | "__builtin__", "dict") => Callable::Dictionary,
        ("builtins" | "__builtin__", "list" | "set" | "frozenset") => Callable::List,
        ("builtins" | "__builtin__", "int" | "float" | "str" | "bool")
        | ("torch", "Size" | "device" | "Tensor")
        | ("torch.nn.parameter", "Parameter")
        | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
        | ("numpy", "dtype" | "ndarray")
        | ("_codecs", "encode")
        | ("argparse", "Namespace")
        | ("pathlib", "PosixPath" | "WindowsPath" | "PurePosixPath")
        | ("datetime", "datetime") => Callable::Other,
        ("torch", name) if DTYPES.contains(&name) => Callable::Other,
        ("numpy.dtypes", name) if name.ends_with("DType") && !name.contains('.') => Callable::Other,
        _ => return None,
    })
}

const DTYPES: [&str; 13] = [
    "float16", "float32", "float64", "bfloat16", "half", "float", "double", "int8", "int16",
    "int32", "int64", "bool", "uint8",
];

fn storage(name: &str) -> Option<Dtype> {
    Some(match name {
        "Double" => Dtype::F64,
        "Float" => Dtype::F32,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" => Dtype::U8,
        "Bool" => Dtype::Bool,
        _ => return None,
    })
}
