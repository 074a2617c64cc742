"""Recording what layers do leaves them as they were."""

import pytest
import torch

from flowsr.transforms import Compose, Haar, PixelShuffle, record_calls


def test_recording_leaves_no_trace():
    flow = Compose([Haar(), PixelShuffle(2)])
    own = flow.parts[0].call_and_ladj
    flow.parts[0].call_and_ladj = own  # somebody's own patch
    with pytest.raises(RuntimeError), record_calls(flow):
        raise RuntimeError
    assert flow.parts[0].__dict__["call_and_ladj"] is own
    assert "inv_call_and_ladj" not in flow.parts[0].__dict__


def test_recordings_nest():
    flow, z = Compose([Haar(), PixelShuffle(2)]), torch.rand(48, 2, 2)
    with record_calls(flow) as outer:
        flow(z)
        with record_calls(flow) as inner:
            flow(z)
        flow(z)
    assert [call.name for call in inner] == ["parts.0", "parts.1"] and len(outer) == 6
    assert all(torch.equal(call.transform(call.input), call.output) for call in outer)
