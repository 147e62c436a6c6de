"""Reference networks. Any ``torch.nn.Module`` that Python can import serves as well."""
