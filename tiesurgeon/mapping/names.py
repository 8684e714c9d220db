"""Names of layers and inputs as valid Python names, each one unique where it stands."""

import keyword
import re

# Attributes of torch.nn.Module: a layer of that name would replace them. Written out, so that
# converting needs no torch; a test compares the list with the installed one.
MODULE_ATTRIBUTES = frozenset(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda
    double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter
    get_submodule half ipu load_state_dict modules mtia named_buffers named_children
    named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook
    register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state
    set_submodule share_memory state_dict to to_empty train training type xpu zero_grad
    """.split()
)
# What model.py imports, builtins that it uses, and `self`.
IN_USE = frozenset("F Path Tensor load load_model nn self super torch tuple dict math".split())


def identifier(name: str) -> str:
    """The name as a Python name: `dense-1` becomes `dense_1`, `1x` becomes `layer_1x`."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    if not name or name[0].isdigit():
        name = f"layer_{name}"
    if keyword.iskeyword(name) or name in MODULE_ATTRIBUTES or name in IN_USE:
        name += "_"
    return name


def class_name(name: str) -> str:
    """The name as a class name: `char_lm` becomes `CharLm`, `encoderGRU` `EncoderGRU`."""
    words = re.split(r"[\W_]+", name, flags=re.ASCII)
    joined = "".join(word[0].upper() + word[1:] for word in words if word)
    if not joined or joined[0].isdigit():
        joined = f"Model{joined}"
    return f"{joined}_" if keyword.iskeyword(joined) or joined in IN_USE else joined


class Names:
    """Gives out names, each only once."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken)

    def new(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`... where it is given out already."""
        unique, count = name, 2
        while unique in self._taken:
            unique, count = f"{name}_{count}", count + 1
        self._taken.add(unique)
        return unique
