//! Operators that move elements about, and those that integers are computed with.

use super::{Call, Fact, MOST_AXES, MOST_KNOWN, Size, agree, axis, broadcast, elements, ranked};
use crate::proto::ElementType;

pub(super) fn arithmetic(operator: &str, a: &Fact, b: &Fact) -> Result<Fact, String> {
    elements(b, a.element)?;
    let shape = broadcast(&a.shape, &b.shape)?;
    let function: fn(i64, i64) -> Option<i64> = match operator {
        "Add" => i64::checked_add,
        "Sub" => i64::checked_sub,
        "Mul" => i64::checked_mul,
        "Div" => i64::checked_div,
        "Mod" => i64::checked_rem_euclid,
        "Min" => |a, b| Some(a.min(b)),
        "Max" => |a, b| Some(a.max(b)),
        _ => |_, _| None,
    };
    let value = match (&a.value, &b.value) {
        (Some(a), Some(b)) if shape.len() < 2 => {
            let at = |values: &[Option<i64>], i: usize| match values {
                [one] => *one,
                _ => values.get(i).copied().flatten(),
            };
            let count = match a.is_empty() || b.is_empty() {
                true => 0,
                false => a.len().max(b.len()),
            };
            let each = (0..count).map(|i| function(at(a, i)?, at(b, i)?));
            Some(each.collect())
        }
        _ => None,
    };
    Ok(Fact {
        element: a.element,
        shape,
        value,
    })
}

/// The same elements in another shape.
fn reshaped(x: &Fact, shape: Vec<Size>) -> Fact {
    let value = x.value.clone().filter(|_| shape.len() < 2);
    Fact {
        element: x.element,
        shape,
        value,
    }
}

/// A shape that a tensor of integers holds.
pub(super) fn sizes(shape: &Fact) -> Result<Vec<Size>, String> {
    elements(ranked(shape, 1)?, ElementType::Int64)?;
    let rank = shape.shape[0].ok_or("the number of dimensions is not known")?;
    if rank > MOST_AXES {
        return Err(format!("{rank} dimensions"));
    }
    let size = |size: &Option<i64>| size.and_then(|size| usize::try_from(size).ok());
    Ok(match &shape.value {
        Some(value) => value.iter().map(size).collect(),
        None => vec![None; rank],
    })
}

/// `None` where a size is not known, or there are too many elements to count.
fn product(shape: &[Size]) -> Size {
    let mut sizes = shape.iter();
    sizes.try_fold(1usize, |product, size| product.checked_mul((*size)?))
}

pub(super) fn reshape(x: &Fact, to: &Fact) -> Result<Fact, String> {
    let mut shape = sizes(to)?;
    let Some(value) = &to.value else {
        return Ok(Fact::new(x.element, shape));
    };
    for (axis, size) in value.iter().enumerate() {
        if *size == Some(0) {
            shape[axis] = *x.shape.get(axis).ok_or("no dimension to keep")?;
        }
    }
    let all = product(&x.shape);
    let free: Vec<usize> = (0..shape.len()).filter(|&i| shape[i].is_none()).collect();
    match (&free[..], all) {
        ([], Some(all)) if product(&shape) != Some(all) => {
            return Err(format!(
                "{:?} has not as many elements as {shape:?}",
                x.shape
            ));
        }
        ([free], Some(all)) => {
            shape[*free] = Some(1);
            let others = product(&shape).unwrap_or(0);
            if others == 0 || all % others != 0 {
                return Err(format!("{:?} does not fit into {shape:?}", x.shape));
            }
            shape[*free] = Some(all / others);
        }
        _ => {}
    }
    Ok(reshaped(x, shape))
}

/// Axes of an operand, each once, in their order.
fn axes(call: &Call, operand: usize, rank: usize) -> Result<Vec<usize>, String> {
    let axes = call.values(operand).ok_or("axes are not known")?;
    let axes = axes.into_iter().map(|i| axis(i, rank));
    let mut axes = axes.collect::<Result<Vec<_>, _>>()?;
    axes.sort_unstable();
    match axes.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(format!("axes {axes:?}")),
        false => Ok(axes),
    }
}

pub(super) fn unsqueeze(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let count = call.values(1).map_or(0, |axes| axes.len());
    let mut shape = x.shape.clone();
    for axis in axes(call, 1, x.shape.len() + count)? {
        shape.insert(axis, Some(1));
    }
    Ok(reshaped(x, shape))
}

pub(super) fn squeeze(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let mut shape = x.shape.clone();
    for axis in axes(call, 1, x.shape.len())?.into_iter().rev() {
        agree(shape.remove(axis), Some(1))?;
    }
    Ok(reshaped(x, shape))
}

pub(super) fn transpose(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let order = call.ints("perm").ok_or("no perm")?;
    let order = order.iter().map(|i| axis(*i, x.shape.len()));
    let shape = order.map(|from| Ok(x.shape[from?]));
    Ok(Fact::new(x.element, shape.collect::<Result<_, String>>()?))
}

/// Elements of a list of integers whose length is known.
fn partly_known(x: &Fact) -> Option<Vec<Option<i64>>> {
    match (&x.value, x.element, &x.shape[..]) {
        (Some(value), ..) => Some(value.clone()),
        (None, ElementType::Int64, [Some(count)]) if *count <= MOST_KNOWN => {
            Some(vec![None; *count])
        }
        _ => None,
    }
}

pub(super) fn concat(call: &Call) -> Result<Fact, String> {
    let first = call.input(0)?;
    let at = call.axis(first, 0)?;
    let mut y = first.clone();
    y.value = partly_known(first);
    for i in 1..call.inputs.len() {
        let x = elements(ranked(call.input(i)?, first.shape.len())?, first.element)?;
        for (axis, (size, other)) in y.shape.iter_mut().zip(&x.shape).enumerate() {
            *size = match axis == at {
                true => size.zip(*other).and_then(|(a, b)| a.checked_add(b)),
                false => agree(*size, *other)?,
            };
        }
        let values = y.value.zip(partly_known(x));
        let values = values.map(|(a, b)| [a, b].concat());
        y.value = values.filter(|values| values.len() <= MOST_KNOWN);
    }
    Ok(y)
}

pub(super) fn slice(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let axes = call.values(3).ok_or("axes are not known")?;
    let steps = call.values(4).unwrap_or_else(|| vec![1; axes.len()]);
    let [starts, ends] = [1, 2].map(|i| call.values(i));
    let known = |ends: &Option<Vec<i64>>, i: usize| ends.as_ref()?.get(i).copied();
    let mut y = Fact::new(x.element, x.shape.clone());
    for (i, (&of, &step)) in axes.iter().zip(&steps).enumerate() {
        let at = axis(of, x.shape.len())?;
        let size = x.shape[at].and_then(|size| i64::try_from(size).ok());
        let bounds = size.zip(known(&starts, i)).zip(known(&ends, i));
        let Some(((size, start), end)) = bounds.filter(|_| step > 0) else {
            y.shape[at] = None;
            continue;
        };
        let place = |i: i64| {
            let i = if i < 0 { i + size } else { i };
            i.clamp(0, size) as usize
        };
        let range = place(start)..place(end).max(place(start));
        y.shape[at] = Some(range.len().div_ceil(step as usize));
        if let (1, 1, Some(value)) = (x.shape.len(), step, &x.value) {
            y.value = value.get(range).map(<[_]>::to_vec);
        }
    }
    Ok(y)
}

pub(super) fn gather(call: &Call) -> Result<Fact, String> {
    let (x, index) = (call.input(0)?, call.input(1)?);
    let axis = call.axis(x, 0)?;
    elements(index, ElementType::Int64)?;
    let (before, after) = (&x.shape[..axis], &x.shape[axis + 1..]);
    let shape = [before, &index.shape, after].concat();
    let picked = |value: &Vec<Option<i64>>, index: Vec<i64>| {
        let count = value.len() as i64;
        let place = |i: i64| if i < 0 { i + count } else { i };
        let pick = |i: i64| value.get(usize::try_from(place(i)).ok()?).copied();
        index.into_iter().map(pick).collect::<Option<Vec<_>>>()
    };
    let value = match (&x.value, index.known()) {
        (Some(value), Some(index)) if shape.len() < 2 => {
            Some(picked(value, index).ok_or("an index is out of range")?)
        }
        _ => None,
    };
    Ok(Fact {
        element: x.element,
        shape,
        value,
    })
}

pub(super) fn gather_nd(call: &Call) -> Result<Fact, String> {
    let (x, index) = (
        call.input(0)?,
        elements(call.input(1)?, ElementType::Int64)?,
    );
    let batch = usize::try_from(call.int("batch_dims").unwrap_or(0)).ok();
    let (last, rest) = index.shape.split_last().ok_or("indices are a number")?;
    let depth = last.ok_or("the depth of indices is not known")?;
    let picked = batch.and_then(|batch| batch.checked_add(depth));
    let left = picked.and_then(|picked| x.shape.get(picked..));
    let left = left.ok_or("indices are too deep")?;
    Ok(Fact::new(x.element, [rest, left].concat()))
}

pub(super) fn range(call: &Call) -> Result<Fact, String> {
    let number = |i: usize| call.values(i)?.first().copied();
    Ok(match (number(0), number(1), number(2)) {
        (Some(start), Some(end), Some(1)) => {
            let count = end.checked_sub(start).ok_or("a range without an end")?;
            let count = usize::try_from(count).unwrap_or(0);
            match count <= MOST_KNOWN {
                true => Fact::integers(1, (start..end).map(Some).collect()),
                false => Fact::new(ElementType::Int64, vec![Some(count)]),
            }
        }
        _ => Fact::new(call.input(0)?.element, vec![None]),
    })
}

pub(super) fn pad(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let pads = call.input(1)?.value.as_ref();
    let pads = pads.filter(|pads| pads.len() == 2 * rank);
    let side = |(axis, size): (usize, &Size)| {
        let pads = pads?;
        let both = pads[axis]?.checked_add(pads[axis + rank]?)?;
        usize::try_from(i64::try_from((*size)?).ok()?.checked_add(both)?).ok()
    };
    let shape = x.shape.iter().enumerate().map(side).collect();
    Ok(Fact::new(x.element, shape))
}

pub(super) fn reduced(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let rank = x.shape.len();
    let axes = match call.operator {
        "ArgMax" => vec![call.int("axis").unwrap_or(0)],
        _ => match (call.ints("axes"), call.values(1)) {
            (Some(axes), _) => axes.to_vec(),
            (None, Some(axes)) => axes,
            (None, None) => (0..rank as i64).collect(),
        },
    };
    let axes = axes
        .into_iter()
        .map(|i| axis(i, rank))
        .collect::<Result<Vec<_>, _>>()?;
    let keep = call.int("keepdims") != Some(0);
    let sizes = x.shape.iter().enumerate();
    let sizes = sizes.filter_map(|(axis, size)| match axes.contains(&axis) {
        true => keep.then_some(Some(1)),
        false => Some(*size),
    });
    let element = match call.operator {
        "ArgMax" => ElementType::Int64,
        _ => x.element,
    };
    Ok(Fact::new(element, sizes.collect()))
}
