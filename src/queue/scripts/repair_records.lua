#!lua flags=allow-oom
-- Puts records of messages right: whatever the audit finds wrong in one has an answer here.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  message ids
-- Result: {what was done, pending pieces}
-- Repeating it finds nothing to do.

-- What work gets to its deadline whose own is lost, ms.
local NEW_DEADLINE = 300000

local CAUSES = {
  permanent = 'D', exhausted = 'D', poison = 'D', unroutable = 'D', undecryptable = 'D', expired = 'X',
}

local done, pending = {}, 0

local function note(text)
  done[#done + 1] = text
end

local function fields_of(record)
  local fields, all = {}, redis.call('HGETALL', record)
  for at = 1, #all, 2 do fields[all[at]] = all[at + 1] end
  return fields
end

-- Makes a piece anew whose state is gone, as work that is ready.
local function revive(id, index, lane, destination, deadline)
  enlist(lane)
  make_ready({
    id = id, index = index, lane = lane, destination = destination, state = 'P', attempts = 0, pauses = 0,
    handed = 0, maybe = index > 0 and '1' or '0', deadline = deadline, place = '',
  }, false)
end

-- The routing of a message: it is pending or it died, or it became the deliveries that are there.
local function repair_routing(id, record, fields, last)
  local name = 'message ' .. id
  if not fields.s0 and last == 0 then
    revive(id, 0, 'in', '', now + NEW_DEADLINE)
    note(name .. ' had lost its routing and is routed again')
    return
  end
  local routing = read_state(fields.s0 or '')
  if last > 0 and not (routing and routing.state == 'E') then
    if routing then
      routing.id, routing.index, routing.lane, routing.destination = id, 0, 'in', ''
      leave_place(routing)
    end
    redis.call('HSET', record, 's0', 'E|0|0|0|0|' .. whole(routing and routing.deadline or now) .. '|')
    redis.call('HDEL', record, 'x0', 'h0')
    note(name .. ' was routed and did not say so')
  end
  if last > 0 and fields.n ~= tostring(last) then
    redis.call('HSET', record, 'n', last)
    note(name .. ' counted its deliveries wrongly')
  elseif last == 0 and fields.n and fields.n ~= '0' then
    redis.call('HDEL', record, 'n')
    note(name .. ' counted deliveries and has none')
  end
end

-- Why a pending piece can never be delivered, nil if it can.
local function hopeless(fields, index)
  if not fields.ct then return 'had no text left' end
  if index > 0 and not fields['rc' .. index] then return 'had no recipient left' end
  return nil
end

-- One piece. What it was is in `fields`, which were read before any change.
local function repair_piece(id, record, fields, index, deadline)
  local name = id .. '/' .. index
  local text = fields['s' .. index]
  if not text then
    local lane, destination = read_route(fields['r' .. index])
    if lane and lane ~= 'in' and not hopeless(fields, index) then
      revive(id, index, lane, destination, deadline)
      note(name .. ' had lost its state and is ready again')
    else
      bury_unreadable('unknown', id, index)
      note(name .. ' had lost its state and is buried')
    end
    return
  end
  local piece, is_unreadable = read_piece(id, index)
  if is_unreadable and not string.match(text, '^[SDXE]|') then
    bury_unreadable(index == 0 and 'in' or 'unknown', id, index)
    note(name .. ' could not be read and is buried')
    return
  end
  if not piece then
    -- It has ended; what of it cannot be read does no harm but to the eye.
    local state = string.sub(text, 1, 1)
    redis.call('HSET', record, 's' .. index, (state == 'E' and index > 0 and 'S' or state) .. '|0|0|0|0|' .. whole(now) .. '|')
    local lane = read_route(fields['r' .. index])
    if index > 0 and (not lane or lane == 'in') then
      redis.call('HSET', record, 'r' .. index, 'unknown||')
    end
    note(name .. ' has ended and could not be read')
    return
  end
  if piece.state == 'E' and index > 0 then piece.state, piece.place = 'P', '' end
  if piece.state == 'P' then
    local why = hopeless(fields, index)
    if why then
      leave_place(piece)
      bury(piece, 'poison')
      note(name .. ' ' .. why .. ' and is buried')
    else
      local was_lost, was_asleep = put_back_if_lost(piece)
      if was_lost then note(name .. ' was lost and is ready again') end
      if was_asleep then note(name .. ' was parked and nothing woke it') end
    end
    return
  end
  if piece.place ~= '' then
    -- What is there in its name is found to be a stray.
    piece.place = ''
    write_piece(piece)
    note(name .. ' had ended and was in a place')
  end
end

-- The letter of a piece, and what only pending work and letters need.
local function repair_letter(id, record, fields, index)
  local name = id .. '/' .. index
  local state = string.match(fields['s' .. index] or '', '^([PSDXE])|')
  local letter = fields['x' .. index]
  if letter and state ~= 'D' and state ~= 'X' then
    redis.call('HDEL', record, 'x' .. index)
    note(name .. ' was a letter of work that did not die')
    letter = nil
  end
  if letter then
    local cause, died_at = string.match(letter, '^(%a+)|(%d+)$')
    if not natural(died_at) or CAUSES[cause] ~= state then
      cause, died_at = state == 'X' and 'expired' or 'poison', natural(died_at) or now
      redis.call('HSET', record, 'x' .. index, cause .. '|' .. whole(died_at))
      note(name .. ' was a letter that could not be read')
    end
    secure(letters_of(cause), 'zset')
    local member = id .. '|' .. index
    if not redis.call('ZSCORE', letters_of(cause), member) then
      redis.call('ZADD', letters_of(cause), died_at, member)
      note(name .. ' was a letter that was not listed')
    end
  end
  if state ~= 'P' and not letter then
    local needless = redis.call('HDEL', record, 'rc' .. index, 'h' .. index)
    if needless > 0 then note(name .. ' kept what nothing needs') end
  end
end

-- What a message says of itself, from its pieces as they are now.
local function repair_sums(id, record)
  local name = 'message ' .. id
  local left, letters = recount(record)
  local fields = redis.call('HMGET', record, 'left', 'lt', 'gone', 'n')
  if natural(fields[1]) ~= left or natural(fields[2] or '0') ~= letters then
    redis.call('HSET', record, 'left', left, 'lt', letters)
    note(name .. ' counted its pieces wrongly')
  end
  local is_listed = moment(redis.call('ZSCORE', DEADLINES, id)) ~= nil
  if left > 0 then
    pending = pending + left
    if fields[3] then redis.call('HDEL', record, 'gone') end
    if redis.call('PERSIST', record) == 1 or fields[3] then note(name .. ' was to expire before its end') end
    if not is_listed then
      local states, earliest = {}, nil
      for index = 0, read_index(fields[4]) or 0 do states[#states + 1] = 's' .. index end
      each_field(record, states, function(_, text)
        local state = read_state(text or '')
        if state and state.state == 'P' then earliest = math.min(earliest or state.deadline, state.deadline) end
      end)
      redis.call('ZADD', DEADLINES, whole(earliest or now), id)
      note(name .. ' was unfinished and its deadline not listed')
    end
    return
  end
  if letters == 0 and redis.call('HDEL', record, 'ct') == 1 then note(name .. ' kept a text that nothing needs') end
  if is_listed then
    redis.call('ZREM', DEADLINES, id)
    note(name .. ' had ended and its deadline was listed')
  end
  if not natural(fields[3]) or redis.call('PTTL', record) < 0 then
    let_go(record, letters > 0)
    note(name .. ' had ended and did not expire')
  end
end

local function repair(id)
  local record = record_of(id)
  if redis.call('EXISTS', record) == 0 then return end
  if not is_message_id(id) or not has_record(id) then
    if redis.call('EXISTS', record) == 1 then set_aside(record) end
    note('the key m:' .. id .. ' was no record and is set aside')
    return
  end
  local fields = fields_of(record)
  local last, is_any = 0, fields.ct ~= nil
  for name in pairs(fields) do
    local index = read_index(string.match(name, '^[sr]c?(%d+)$'))
    if index and (string.sub(name, 1, 1) == 's' or index > 0) then
      last, is_any = math.max(last, index), true
    end
  end
  if not is_any then
    set_aside(record)
    note('message ' .. id .. ' had neither text nor work and is set aside')
    return
  end
  repair_routing(id, record, fields, last)
  fields = fields_of(record)
  local routing = read_state(fields.s0 or '')
  local deadline = math.max(now + NEW_DEADLINE, routing and routing.deadline or 0)
  for index = 0, last do repair_piece(id, record, fields, index, deadline) end
  fields = fields_of(record)
  for name in pairs(fields) do
    last = math.max(last, read_index(string.match(name, '^[xh](%d+)$')) or 0)
  end
  for index = 0, last do repair_letter(id, record, fields, index) end
  repair_sums(id, record)
end

for at = 5, #ARGV do repair(ARGV[at]) end
return { done, pending }
