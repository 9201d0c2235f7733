"""DCNv3 by hand, by property and through export; `tests/reference` compares it with the original's numbers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pix2next.model.dcnv3 import DeformableConv, dcnv3

THREE: dict[str, Any] = {
    "kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1, "groups": 1, "offset_scale": 1.0
}  # fmt: skip


def no_offset(size: tuple[int, int, int], taps: int = 9, **options: Any) -> torch.Tensor:
    return torch.zeros(*size, 2 * taps, **options)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 2, 1), (3, 1, 2, 2), (3, 2, 0, 2)],
)
def test_without_offsets_it_is_a_convolution_by_the_masks(
    kernel_size: int, stride: int, padding: int, dilation: int
) -> None:
    x = torch.randn(2, 9, 13, 4)
    kernel = torch.randn(kernel_size, kernel_size)
    expected = F.conv2d(
        x.permute(0, 3, 1, 2),
        kernel.expand(4, 1, -1, -1),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=4,
    ).permute(0, 2, 3, 1)
    size = tuple(expected.shape[:3])
    # Taps run column by column, hence the transpose.
    mask = kernel.T.flatten().repeat(2).expand(*size, -1)
    out = dcnv3(
        x,
        no_offset(size, 2 * kernel_size**2),
        mask,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=2,
        offset_scale=1.0,
    )
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_an_offset_of_one_pixel_to_the_right_reads_the_neighbour() -> None:
    x = torch.arange(20.0).reshape(1, 4, 5, 1)
    offset = no_offset((1, 4, 5))
    offset[..., 0::2] = 1
    mask = torch.zeros(1, 4, 5, 9)
    mask[..., 4] = 1  # the middle tap alone
    out = dcnv3(x, offset, mask, **THREE)
    torch.testing.assert_close(out[:, :, :-1], x[:, :, 1:])
    assert out[:, :, -1].eq(0).all()


def test_half_a_pixel_down_is_the_mean_of_two_rows() -> None:
    x = torch.randn(1, 6, 5, 2)
    offset = no_offset((1, 6, 5))
    offset[..., 1::2] = 0.5
    mask = torch.zeros(1, 6, 5, 9)
    mask[..., 4] = 1
    out = dcnv3(x, offset, mask, **THREE)
    torch.testing.assert_close(out[:, :-1], (x[:, :-1] + x[:, 1:]) / 2)


def test_offset_scale_stretches_the_grid_of_taps_too() -> None:
    x = torch.randn(1, 8, 8, 2)
    mask = torch.rand(1, 8, 8, 9)
    stretched = dcnv3(x, no_offset((1, 8, 8)), mask, **(THREE | {"offset_scale": 2.0}))
    dilated = dcnv3(x, no_offset((1, 8, 8)), mask, **(THREE | {"dilation": 2, "padding": 2}))
    torch.testing.assert_close(stretched, dilated)


def test_padding_rounds_as_zeros_around_the_input_do() -> None:
    # Bit for bit, so that results agree with the original's, which pads, at any size.
    x, offset, mask = torch.randn(1, 48, 77, 4), torch.randn(1, 48, 77, 18), torch.rand(1, 48, 77, 9)
    padded = dcnv3(F.pad(x, (0, 0, 1, 1, 1, 1)), offset, mask, **(THREE | {"padding": 0}))
    assert torch.equal(dcnv3(x, offset, mask, **THREE), padded)


def test_groups_move_independently() -> None:
    x = torch.randn(1, 6, 7, 8)
    offset, mask = torch.randn(1, 6, 7, 36), torch.rand(1, 6, 7, 18)
    both = dcnv3(x, offset, mask, **(THREE | {"groups": 2}))
    apart = [
        dcnv3(part, part_offset, part_mask, **THREE)
        for part, part_offset, part_mask in zip(x.chunk(2, -1), offset.chunk(2, -1), mask.chunk(2, -1), strict=True)
    ]
    torch.testing.assert_close(both, torch.cat(apart, dim=-1))


def test_gradients_of_input_offsets_and_masks() -> None:
    torch.manual_seed(0)
    inputs = (torch.randn(1, 4, 5, 4), 0.3 + 0.4 * torch.rand(1, 2, 3, 36), torch.rand(1, 2, 3, 18))
    inputs = tuple(x.double().requires_grad_() for x in inputs)
    settings = THREE | {"groups": 2, "stride": 2, "offset_scale": 0.5}
    assert torch.autograd.gradcheck(lambda *x: dcnv3(*x, **settings), inputs)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_bfloat16_forward_and_backward(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    # The exact numbers that bfloat16 can hold, so that only the result's rounding is left.
    x, offset, mask = (
        torch.randn(1, 12, 200, channels, device=device).bfloat16().requires_grad_() for channels in (8, 36, 18)
    )
    out = dcnv3(x, offset, mask, **(THREE | {"groups": 2}))
    out.float().square().sum().backward()
    exact = dcnv3(x.float(), offset.float(), mask.float(), **(THREE | {"groups": 2}))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, exact.bfloat16())
    for tensor in (x, offset, mask):
        assert tensor.grad is not None
        assert tensor.grad.dtype == torch.bfloat16
        assert tensor.grad.isfinite().all()
        assert tensor.grad.ne(0).any()


def test_the_layer_starts_as_the_mean_over_the_window() -> None:
    layer = DeformableConv(8, groups=2, offset_scale=1.0)
    x = torch.randn(1, 5, 6, 8)
    mean = F.avg_pool2d(layer.input_proj(x).permute(0, 3, 1, 2), 3, stride=1, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(layer(x), layer.output_proj(mean))


def test_exported_equals_eager_at_another_size() -> None:
    layer = DeformableConv(8, groups=2, offset_scale=1.0).eval()
    for linear in (layer.offset, layer.mask):
        torch.nn.init.normal_(linear.weight)
    sides = {1: torch.export.Dim("h", min=2, max=99), 2: torch.export.Dim("w", min=2, max=99)}
    exported = torch.export.export(layer, (torch.randn(1, 10, 12, 8),), dynamic_shapes=(sides,))
    x = torch.randn(1, 7, 23, 8)
    torch.testing.assert_close(exported.module()(x), layer(x))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((1, 4, 4, 5), (1, 4, 4, 36), (1, 4, 4, 18)), "5 channels cannot be split into 2"),
        (((1, 4, 4, 4), (1, 4, 4, 18), (1, 4, 4, 18)), "need 36 offsets and 18 masks"),
        (((1, 4, 4, 4), (1, 3, 4, 36), (1, 3, 4, 18)), "gives an output of 4 x 4"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dcnv3(*(torch.zeros(shape) for shape in shapes), **(THREE | {"groups": 2}))
