"""Which Arrow types decode to the same values, and so may be one column of several files."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema without encodings. Fields, dtypes and shapes of the records depend on it alone."""
    import pyarrow as pa

    return pa.schema([pa.field(field.name, plain(field.type)) for field in schema])


def plain(kind: pa.DataType) -> pa.DataType:
    """A type without dictionaries, run ends, views, extensions and nullability.

    >>> import pyarrow as pa
    >>> plain(pa.dictionary(pa.int8(), pa.string_view()))
    DataType(string)
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, plain(f.type)) for f in kind])
    if types.is_map(kind):
        return pa.map_(plain(kind.key_type), plain(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_item(plain(kind.value_type)), kind.list_size)
    if is_ragged(kind):
        return _listed(kind, plain(kind.value_type))
    return kind


def widened(kind: pa.DataType) -> pa.DataType:
    """A plain type with 64-bit offsets, so that arrays of it can always be concatenated."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_string(kind):
        return pa.large_string()
    if types.is_binary(kind):
        return pa.large_binary()
    if types.is_struct(kind):
        return pa.struct([pa.field(f.name, widened(f.type)) for f in kind])
    if types.is_map(kind):  # a map's own offsets count entries and always have 32 bits
        return pa.map_(widened(kind.key_type), widened(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_item(widened(kind.value_type)), kind.list_size)
    if is_ragged(kind):
        return pa.large_list(_item(widened(kind.value_type)))
    return kind


def merged(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    """The plain type of a column that is `a` in one file and `b` in another; None if they differ.

    Types merge if they decode alike: the size of offsets, the order of a struct's fields and a
    decimal's precision do not matter. A column of only nulls takes the other's type.

    >>> import pyarrow as pa
    >>> merged(pa.null(), pa.list_(pa.large_string())), merged(pa.int8(), pa.int16())
    (ListType(list<item: large_string>), None)
    """
    from pyarrow import types

    if a == b or types.is_null(b):
        return a
    if types.is_null(a):
        return b
    if any(family(a) and family(b) for family in (is_text, _is_bytes)):
        return a
    if types.is_decimal(a) and types.is_decimal(b):
        return a if a.scale == b.scale else None
    if types.is_timestamp(a) and types.is_timestamp(b):
        return a if a.unit == b.unit and a.tz and b.tz else None  # both are instants in UTC
    return _merged_nested(a, b)


def _merged_nested(a: pa.DataType, b: pa.DataType) -> pa.DataType | None:
    import pyarrow as pa
    from pyarrow import types

    if types.is_struct(a) and types.is_struct(b):
        inner = {f.name: f.type for f in b}
        if {f.name for f in a} != inner.keys():
            return None
        fields = [(f.name, merged(f.type, inner[f.name])) for f in a]
        return None if any(t is None for _, t in fields) else pa.struct(fields)
    if types.is_map(a) and types.is_map(b):
        key, item = merged(a.key_type, b.key_type), merged(a.item_type, b.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    fixed = types.is_fixed_size_list(a) and types.is_fixed_size_list(b)
    if (fixed and a.list_size == b.list_size) or (is_ragged(a) and is_ragged(b)):
        value = merged(a.value_type, b.value_type)
        return None if value is None else _listed(a, value)
    return None


def is_text(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    from pyarrow import types

    large = types.is_large_binary(kind) or types.is_binary_view(kind)
    return large or types.is_binary(kind) or types.is_fixed_size_binary(kind)


def is_ragged(kind: pa.DataType) -> bool:
    """Whether a type is a list of variable length, but not a map."""
    from pyarrow import types

    views = types.is_list_view(kind) or types.is_large_list_view(kind)
    return views or types.is_list(kind) or types.is_large_list(kind)


def _listed(kind: pa.DataType, value: pa.DataType) -> pa.DataType:
    import pyarrow as pa
    from pyarrow import types

    if types.is_fixed_size_list(kind):
        return pa.list_(_item(value), kind.list_size)
    large = types.is_large_list(kind) or types.is_large_list_view(kind)
    return pa.large_list(_item(value)) if large else pa.list_(_item(value))


def _item(kind: pa.DataType) -> pa.Field:
    # one name for the elements of lists: files say "element" or "item", and pickling changes it
    import pyarrow as pa

    return pa.field("item", kind)


def fault(kind: pa.DataType) -> str | None:
    """Why no value of a type can be read, judged by the type alone; None if values can be read."""
    from pyarrow import types

    inner = [kind.field(i) for i in range(kind.num_fields)]
    names = [field.name for field in inner]
    if types.is_struct(kind) and len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"has two fields {twice!r} in one struct"
    if types.is_union(kind) and not inner:  # pyarrow aborts the process
        return "is a union of no types"
    if types.is_dictionary(kind):
        return fault(kind.value_type)
    return next((why for field in inner if (why := fault(field.type))), None)


def width(kind: pa.DataType) -> int:
    """How many elements or bytes one value of a type holds, counting nested fixed-size types."""
    from pyarrow import types

    if types.is_fixed_size_binary(kind):
        return kind.byte_width
    size = kind.list_size if types.is_fixed_size_list(kind) else 1
    return size * max([width(kind.field(i).type) for i in range(kind.num_fields)], default=1)
