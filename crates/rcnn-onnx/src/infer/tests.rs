use super::*;

fn floats(shape: &[Size]) -> Fact {
    Fact::new(ElementType::Float, shape.to_vec())
}

fn ints(values: &[i64]) -> Fact {
    Fact::integers(1, values.iter().copied().map(Some).collect())
}

fn of(operator: &str, inputs: &[&Fact], attributes: &[Attribute]) -> Result<Fact, String> {
    let inputs: Vec<_> = inputs.iter().map(|fact| Some(*fact)).collect();
    let call = Call {
        operator,
        inputs: &inputs,
        attributes,
    };
    infer(&call).map(|mut facts| facts.remove(0))
}

fn shape(operator: &str, inputs: &[&Fact], attributes: &[Attribute]) -> Vec<Size> {
    of(operator, inputs, attributes).expect("a shape").shape
}

#[test]
fn integers_that_follow_from_sizes_are_known() {
    let x = floats(&[Some(2), None, Some(6)]);
    let sizes = of("Shape", &[&x], &[]).unwrap();
    assert_eq!(sizes.value, Some(vec![Some(2), None, Some(6)]));
    let last = of("Gather", &[&sizes, &ints(&[2])], &[]).unwrap();
    let less = of("Sub", &[&last, &ints(&[10])], &[]).unwrap();
    assert_eq!(less.known(), Some(vec![-4]));
    let rest = of("Mod", &[&less, &ints(&[32])], &[]).unwrap();
    assert_eq!(rest.known(), Some(vec![28]), "of the sign of the divisor");
    let both = of("Concat", &[&sizes, &rest], &[Attribute::Int("axis", 0)]).unwrap();
    assert_eq!(both.value.unwrap()[1..], [None, Some(6), Some(28)]);
}

#[test]
fn sizes_of_windows() {
    let attributes = |stride: i64, pad: i64| {
        let strides = Attribute::Ints("strides", vec![stride; 2]);
        [strides, Attribute::Ints("pads", vec![pad; 4])]
    };
    let x = floats(&[None, Some(3), Some(33), None]);
    let weight = floats(&[Some(8), Some(3), Some(7), Some(7)]);
    let found = shape("Conv", &[&x, &weight], &attributes(2, 3));
    assert_eq!(found, [None, Some(8), Some(17), None]);
    let error = of(
        "Conv",
        &[&floats(&[None, Some(4), None, None]), &weight],
        &[],
    )
    .unwrap_err();
    assert_eq!(error, "sizes 4 and 3 differ");
    let weight = floats(&[Some(3), Some(8), Some(2), Some(2)]);
    let found = shape("ConvTranspose", &[&x, &weight], &attributes(2, 0));
    assert_eq!(found, [None, Some(8), Some(66), None]);
}

#[test]
fn same_padding_makes_an_output_for_every_step() {
    let x = floats(&[None, Some(3), Some(33), Some(64)]);
    let same = [
        Attribute::Ints("strides", vec![2; 2]),
        Attribute::Text("auto_pad", "SAME_UPPER"),
        Attribute::Ints("kernel_shape", vec![3; 2]),
    ];
    let found = shape("MaxPool", &[&x], &same);
    assert_eq!(found, [None, Some(3), Some(17), Some(32)]);
}

/// Files that others wrote may say anything.
#[test]
fn numbers_that_are_too_large_or_missing_end_in_no_panic() {
    let x = floats(&[Some(2), Some(3), Some(8), Some(8)]);
    let huge = floats(&[Some(usize::MAX), Some(usize::MAX)]);
    let weight = floats(&[Some(8), Some(3), Some(3), Some(3)]);
    let number = Fact::new(ElementType::Int64, vec![]);
    let none = ints(&[]);
    let many = Fact::new(ElementType::Int64, vec![Some(usize::MAX)]);
    let far = [i64::MIN, i64::MAX];
    let lists = |name| far.map(|value| vec![Attribute::Ints(name, vec![value; 4])]);
    let mut attributes = vec![vec![]];
    for name in [
        "strides",
        "pads",
        "dilations",
        "kernel_shape",
        "pooled_shape",
        "perm",
    ] {
        attributes.extend(lists(name));
    }
    for name in ["axis", "group", "batch_dims", "output_height"] {
        attributes.extend(far.map(|value| vec![Attribute::Int(name, value)]));
    }
    attributes.push(vec![
        Attribute::Ints("strides", vec![0; 2]),
        Attribute::Ints("kernel_shape", vec![i64::MAX; 2]),
    ]);
    let operands = [
        &x,
        &huge,
        &weight,
        &number,
        &none,
        &many,
        &ints(&far),
        &ints(&[1, 1]),
    ];
    let operators = [
        "Neg",
        "Add",
        "Mul",
        "Div",
        "Mod",
        "Where",
        "Conv",
        "ConvTranspose",
        "MaxPool",
        "Gemm",
        "MatMul",
        "Reshape",
        "Expand",
        "Transpose",
        "Unsqueeze",
        "Squeeze",
        "Concat",
        "Slice",
        "Gather",
        "GatherElements",
        "GatherND",
        "ScatterND",
        "Range",
        "TopK",
        "NonMaxSuppression",
        "RoiAlign",
        "MaxRoiPool",
        "Pad",
        "Resize",
        "ReduceMax",
        "ArgMax",
    ];
    for operator in operators {
        for attributes in &attributes {
            let _ = of(operator, &[], attributes);
            for a in operands {
                let _ = of(operator, &[a], attributes);
                for b in operands {
                    let _ = of(operator, &[a, b], attributes);
                    let _ = of(operator, &[a, b, b, b, a], attributes);
                }
            }
        }
    }
}

/// A file of a kilobyte filled the memory.
#[test]
fn dimensions_do_not_double_without_end() {
    let mut x = Fact::new(ElementType::Int64, vec![Some(2); 2]);
    for axes in [3, 5, 9, 17, 33] {
        x = of("Gather", &[&x, &x], &[]).unwrap();
        assert_eq!(x.shape.len(), axes);
    }
    assert_eq!(of("Gather", &[&x, &x], &[]).unwrap_err(), "65 dimensions");
}

#[test]
fn what_does_not_fit_is_named() {
    let x = floats(&[Some(2), Some(6)]);
    assert_eq!(
        shape("Reshape", &[&x, &ints(&[0, -1, 3])], &[]),
        [Some(2), Some(2), Some(3)]
    );
    assert!(of("Reshape", &[&x, &ints(&[5, -1])], &[]).is_err());
    assert!(of("Reshape", &[&x, &ints(&[5, 2])], &[]).is_err());
    assert!(of("Add", &[&x, &floats(&[Some(5)])], &[]).is_err());
    assert!(of("Add", &[&x, &ints(&[5])], &[]).is_err());
    assert!(of("Concat", &[&x, &ints(&[1])], &[Attribute::Int("axis", 0)]).is_err());
    assert!(of("Sin", &[&x], &[]).is_err());
}
