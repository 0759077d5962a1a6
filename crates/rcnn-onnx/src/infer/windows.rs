//! Operators whose window slides over `[N, C, ..]`.

use super::{Call, Fact, Size, agree, ranked};

pub(super) fn convolution(call: &Call) -> Result<Fact, String> {
    let (x, weight) = (call.input(0)?, call.input(1)?);
    ranked(weight, x.shape.len())?;
    let ([_, taken, ..], [out, of_group, kernel @ ..]) = (&x.shape[..], &weight.shape[..]) else {
        return Err("no channels".into());
    };
    let groups = usize::try_from(call.int("group").unwrap_or(1)).map_err(|_| "negative groups")?;
    let kernel: Option<Vec<i64>> = kernel
        .iter()
        .map(|size| i64::try_from((*size)?).ok())
        .collect();
    let kernel = kernel.ok_or("the kernel's size is not known")?;
    let of_group = of_group.and_then(|channels| channels.checked_mul(groups));
    let (wanted, made) = match call.operator {
        "Conv" => (of_group, *out),
        _ => (*out, of_group),
    };
    agree(*taken, wanted)?;
    if let Some(bias) = call.optional(2) {
        agree(ranked(bias, 1)?.shape[0], made)?;
    }
    windows(call, x, &kernel, made)
}

pub(super) fn pooling(call: &Call) -> Result<Fact, String> {
    let x = call.input(0)?;
    let kernel = call.ints("kernel_shape").ok_or("no kernel_shape")?;
    windows(call, x, kernel, x.shape.get(1).copied().flatten())
}

fn windows(call: &Call, x: &Fact, kernel: &[i64], channels: Size) -> Result<Fact, String> {
    let axes = kernel.len();
    ranked(x, axes + 2)?;
    let list = |name: &str, count: usize, default: i64| match call.ints(name) {
        Some(values) if values.len() == count => Ok(values.to_vec()),
        Some(values) => Err(format!("{name} = {values:?}: expected {count} numbers")),
        None => Ok(vec![default; count]),
    };
    let strides = list("strides", axes, 1)?;
    let dilations = list("dilations", axes, 1)?;
    let pads = list("pads", 2 * axes, 0)?;
    let added = list("output_padding", axes, 0)?;
    if strides.iter().any(|stride| *stride < 1) {
        return Err(format!("strides = {strides:?}"));
    }
    let is_same = call.text("auto_pad") == Some("SAME_UPPER");
    // Without a size where it is too large to count.
    let side = |axis: usize| -> Size {
        let size = i64::try_from(x.shape[axis + 2]?).ok()?;
        let (stride, before) = (strides[axis], pads[axis]);
        let reach = kernel[axis].checked_sub(1)?.checked_mul(dilations[axis])?;
        let reach = reach.checked_add(1)?;
        let both = before.checked_add(pads[axis + axes])?;
        let made = if call.operator == "ConvTranspose" {
            let spread = size.checked_sub(1)?.checked_mul(stride)?;
            let whole = spread.checked_add(reach)?.checked_sub(both)?;
            whole.checked_add(added[axis])?
        } else if is_same {
            size.checked_add(stride - 1)? / stride
        } else {
            let span = size.checked_add(both)?.checked_sub(reach)?;
            let whole = span.div_euclid(stride).checked_add(1)?;
            // A window that is cut off counts if it begins before the padding at the end.
            let more = call.int("ceil_mode") == Some(1)
                && span.rem_euclid(stride) != 0
                && whole.checked_mul(stride)? < size.checked_add(before)?;
            whole.checked_add(i64::from(more))?
        };
        usize::try_from(made).ok()
    };
    let sides = (0..axes).map(side);
    let shape = [x.shape[0], channels].into_iter().chain(sides);
    Ok(Fact::new(x.element, shape.collect()))
}
