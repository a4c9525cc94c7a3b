//! Conversion of the element type.

use alloc::vec::Vec;

use super::rules::{for_any, required};
use super::{Attrs, Frame, Input, OpError, Operator, TensorType};
use crate::graph::{Element, ElementType};

/// What elements of all types pass through: f32 as it is, all others as i64.
#[derive(Clone, Copy)]
enum Any {
    Float(f32),
    Int(i64),
}

trait Convert: Element {
    fn widen(self) -> Any;
    fn narrow(value: Any) -> Self;
}

impl Convert for f32 {
    fn widen(self) -> Any {
        Any::Float(self)
    }

    fn narrow(value: Any) -> Self {
        match value {
            Any::Float(x) => x,
            Any::Int(x) => x as Self,
        }
    }
}

impl Convert for bool {
    fn widen(self) -> Any {
        Any::Int(i64::from(self))
    }

    fn narrow(value: Any) -> Self {
        match value {
            Any::Float(x) => x != 0.0,
            Any::Int(x) => x != 0,
        }
    }
}

macro_rules! integers {
    ($($type:ty)+) => {$(
        impl Convert for $type {
            fn widen(self) -> Any { Any::Int(i64::from(self)) }
            fn narrow(value: Any) -> Self {
                match value {
                    Any::Float(x) => x as Self,
                    Any::Int(x) => x as Self,
                }
            }
        }
    )+};
}
integers!(u8 i8 i32 i64);

fn convert<S: Convert, T: Convert>(frame: &mut Frame<'_>) {
    let x = frame.input(0).get::<S>();
    frame.output(0).get::<T>().iter_mut().zip(x).for_each(|(y, x)| *y = T::narrow(x.widen()));
}

/// Converts elements to another type; floats to integers truncate and saturate (NaN: 0), integers to smaller ones wrap,
/// all that is not 0 is true. ONNX Cast.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// The type of the output.
    pub to: ElementType,
}

impl Cast {
    pub(super) fn read(attrs: &mut Attrs) -> Result<Self, OpError> {
        let code = attrs.int_or("to", 0)?;
        // Concerns only 8-bit floats.
        attrs.take("saturate");
        let to = super::attrs::element_type(code).ok_or_else(|| {
            OpError::new("a cast to f32, u8, i8, i32, i64 or bool", alloc::format!("ONNX type {code}"))
        })?;
        Ok(Self { to })
    }
}

impl Operator for Cast {
    fn attrs(&self) -> Attrs {
        Attrs::new().with_int("to", super::attrs::type_code(self.to))
    }

    fn infer(&self, inputs: &[Option<Input<'_>>]) -> Result<Vec<TensorType>, OpError> {
        TensorType::one(self.to, required(inputs, 0)?.shape)
    }

    fn eval(&self, frame: &mut Frame<'_>) -> Result<(), OpError> {
        let (from, to) = (frame.input(0).element(), self.to);
        for_any!(from, S => for_any!(to, T => convert::<S, T>(frame)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Data, Tensor};
    use crate::ops::eval;
    use alloc::vec;

    #[test]
    fn converts_between_all_kinds() {
        let floats = || Data::F32(vec![-1.9, 0.4, 300.0, f32::NAN, f32::INFINITY]);
        let longs = || Data::I64(vec![-1, 0, 300, 1 << 40, i64::MAX]);
        let cases = [
            (floats(), Data::U8(vec![0, 0, 255, 0, 255])),
            (floats(), Data::I8(vec![-1, 0, 127, 0, 127])),
            (floats(), Data::I32(vec![-1, 0, 300, 0, i32::MAX])),
            (floats(), Data::I64(vec![-1, 0, 300, 0, i64::MAX])),
            (floats(), Data::Bool(vec![true, true, true, true, true])),
            (longs(), Data::U8(vec![255, 0, 44, 0, 255])),
            (longs(), Data::I32(vec![-1, 0, 300, 0, -1])),
            (longs(), Data::F32(vec![-1.0, 0.0, 300.0, 1_099_511_627_776.0, 9_223_372_036_854_775_807.0])),
            (longs(), Data::Bool(vec![true, false, true, true, true])),
            (Data::Bool(vec![true, false, true, true, false]), Data::F32(vec![1.0, 0.0, 1.0, 1.0, 0.0])),
            (Data::U8(vec![0, 1, 128, 200, 255]), Data::I8(vec![0, 1, -128, -56, -1])),
            (Data::F32(vec![-0.0, 0.0, 1e-40, 1.0, -1.0]), Data::Bool(vec![false, false, true, true, true])),
        ];
        for (from, to) in cases {
            let x = Tensor::new(vec![5], from).unwrap();
            let y = eval(&Cast { to: to.element() }.into(), &[Some(&x)]).unwrap();
            assert_eq!(y[0].data(), &to, "from {:?}", x.data());
        }
    }

    #[test]
    fn refuses_types_that_are_not_ours() {
        for code in [0, 10, 11, -1, 99] {
            assert!(Cast::read(&mut Attrs::new().with_int("to", code)).is_err(), "{code}");
        }
    }
}
