"""A trained network as a file that other programs run: ONNX, OpenVINO's, or torch.export's."""
