function net = vl_simplenn_tidy(net)
% Gives layers the names and fields that vl_simplenn reads.
  for l = 1:numel(net.layers)
    layer = net.layers{l};
    if ~isfield(layer, 'name'), layer.name = sprintf('layer%d', l) ; end
    if ~isfield(layer, 'weights'), layer.weights = {} ; end
    if strcmp(layer.type, 'conv') && ~isfield(layer, 'pad'), layer.pad = 0 ; end
    if strcmp(layer.type, 'conv') && ~isfield(layer, 'stride'), layer.stride = 1 ; end
    if strcmp(layer.type, 'bnorm') && ~isfield(layer, 'epsilon'), layer.epsilon = 1e-5 ; end
    net.layers{l} = layer;
  end
  if ~isfield(net, 'meta'), net.meta = struct() ; end
end
