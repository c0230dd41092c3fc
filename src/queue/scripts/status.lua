#!lua flags=no-writes
-- Shows one message.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  the message id
-- Result: false if there is none, or {routed, deadline, deliveries}, and of each delivery
--   {channel, label (false without a destination), state letter, failed attempts}

local id = ARGV[5]
if not has_record(id) then return false end
local record = record_of(id)
local head = redis.call('HMGET', record, 's0', 'n', 'gone', 'r0')
local gone = natural(head[3])
if not head[1] or (gone and gone <= now) then return false end

local routing = read_state(head[1])
local deliveries, deadline = {}, routing and routing.deadline or 0
local function show(index, state, route, default_channel)
  local channel, _, label = read_route(route)
  -- What cannot be read is pending until its turn comes, and then buried.
  local letter, attempts = state and state.state or 'P', state and state.attempts or 0
  deliveries[#deliveries + 1] = { channel or default_channel, index > 0 and (label or '') or false, letter, attempts }
end

local is_routed = routing ~= nil and routing.state == 'E'
if routing and routing.state ~= 'E' and routing.state ~= 'P' then show(0, routing, head[4], 'in') end
local number = is_routed and read_index(head[2]) or 0
local latest = nil
for index = 1, number do
  local fields = redis.call('HMGET', record, 's' .. index, 'r' .. index)
  if fields[1] then
    local state = read_state(fields[1])
    if state then latest = math.max(latest or state.deadline, state.deadline) end
    show(index, state, fields[2], 'unknown')
  end
end
return { is_routed and 1 or 0, latest or deadline, deliveries }
